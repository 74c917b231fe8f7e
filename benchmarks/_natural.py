"""Which unaltered images of the benchmark's data sets are near-duplicates of each other anyway.

For magnetic tiles the file names tell. For CIFAR-10 the pairs that any of the tools reported
were looked at, and those that are the same picture, cropped, recoloured or retouched, are
listed: they hold for every fifth training image, the ones `benchmarks.duplicates` takes.
"""

import re

_RUN = 300  # shots: one tile, at up to seven exposures
_AGAIN = 150
# Shots of tiles that were taken up a second time: the same marks are on both.
_TILES_AGAIN = (
    (8676, 9196, 10448, 10790),
    (37071, 37262, 37571),
    (53011, 65054),
    (85665, 85897, 86064, 86828, 88201),
    (108741, 108923),
    (136254, 136716),
    (257656, 257962),
    (306654, 309390),
    (320808, 320895),
    (355669, 358149),
)
# Names without .jpg; a line is one picture.
_CIFAR = (
    "airplane/0345 airplane/3900",
    "airplane/0585 airplane/1245 airplane/2495",
    "airplane/0730 airplane/2310",
    "airplane/0960 airplane/3725 airplane/4335",
    "airplane/1750 airplane/3235",
    "airplane/2020 airplane/3875",
    "airplane/3180 airplane/3475",
    "airplane/3520 airplane/4700",
    "automobile/0255 automobile/0585",
    "automobile/0520 automobile/1085 automobile/1660 automobile/2250 automobile/2580 "
    "automobile/2680 automobile/3275",
    "automobile/0570 automobile/2055",
    "automobile/0665 automobile/4205",
    "automobile/0850 automobile/3845",
    "automobile/1170 automobile/1590 automobile/2120",
    "automobile/1750 automobile/4005",
    "automobile/2375 automobile/2435",
    "bird/2300 bird/3320",
    "bird/2970 bird/4155",
    "bird/2975 bird/3625",
    "cat/1200 cat/2650",
    "cat/2135 cat/3285",
    "deer/0075 deer/1990",
    "deer/0815 deer/1115",
    "deer/2255 deer/3955",
    "dog/0325 dog/4710",
    "dog/0505 dog/1210",
    "dog/0850 dog/1115",
    "frog/0560 frog/2790",
    "frog/0965 frog/2410 frog/3545",
    "frog/1250 frog/4340",
    "frog/2120 frog/3290",
    "frog/2240 frog/4930",
    "frog/2725 frog/3905",
    "frog/2915 frog/4570",
    "horse/0195 horse/4900",
    "horse/1035 horse/4875",
    "ship/0075 ship/0520",
    "truck/2000 truck/3220",
)


def same_tile(one: str, other: str) -> bool:
    """Whether exp<exposure>_num_<shot>.jpg are of one tile."""
    (exposure, shot), (other_exposure, other_shot) = _shot(one), _shot(other)
    again = any(
        any(abs(shot - listed) <= _AGAIN for listed in shots)
        and any(abs(other_shot - listed) <= _AGAIN for listed in shots)
        for shots in _TILES_AGAIN
    )
    return again or (exposure != other_exposure and abs(shot - other_shot) <= _RUN)


def same_cifar_picture(one: str, other: str) -> bool:
    """Whether <class>/<number>.jpg are of one listed picture."""
    names = {one.removesuffix(".jpg"), other.removesuffix(".jpg")}
    return any(names <= set(pictures.split()) for pictures in _CIFAR)


def _shot(name: str) -> tuple[int, int]:
    found = re.search(r"exp(\d+)_num_(\d+)", name)
    if found is None:
        raise ValueError(f"{name}: not a magnetic tile, exp<exposure>_num_<shot>.jpg")
    return int(found[1]), int(found[2])
