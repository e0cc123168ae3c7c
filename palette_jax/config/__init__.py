"""From a config to objects: keys, allowed values, checks and builders."""
