"""What the self-contained HTML pages share: template environment, style sheet, charts, images."""
