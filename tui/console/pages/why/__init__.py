"""Why an image or a fix is as it is, and the evidence."""
