"""The three stages. Each reads only the folder before it and writes only its own."""
