"""Class activation maps and the numbers drawn from them."""
