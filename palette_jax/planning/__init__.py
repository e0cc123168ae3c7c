"""What a run would take on a machine: steps, memory, work and communication."""
