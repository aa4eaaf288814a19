"""How things look: lines with roles, colours, signs, headers. No widget."""
