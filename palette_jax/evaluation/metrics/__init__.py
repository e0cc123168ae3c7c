"""How good a restored picture is; one file for each family of metrics."""
