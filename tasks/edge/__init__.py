"""A bundle on other machines: exported folders, converted formats, where its time goes."""
