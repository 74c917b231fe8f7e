"""The corruptions by family, and their severities; without PyTorch, for who only reads results."""

SEVERITIES = (1, 2, 3, 4, 5)
COMMON: dict[str, tuple[str, ...]] = {  # the published fifteen
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
FAMILIES = COMMON | {
    "viewpoint": ("rotation", "shear", "scale", "perspective"),
    "scene": ("occlusion", "lighting"),
}
PUBLISHED = tuple(name for names in COMMON.values() for name in names)
ALL = tuple(name for names in FAMILIES.values() for name in names)
