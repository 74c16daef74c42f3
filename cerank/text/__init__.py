"""Text from outside made safe to show, to keep and to write in tables."""
