"""The parts of Spark's wire, from signing to codes. No socket, no task, no clock."""
