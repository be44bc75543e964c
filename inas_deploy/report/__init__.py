"""What a person looks at: one HTML file, Markdown for a pull request, tables in a terminal."""
