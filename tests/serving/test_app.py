"""The server as a client sees it: answers, refusals, health."""

import io
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tasks import releases
from tasks.bundle import Bundle
from tasks.params import Settings
from tasks.predictions import open_log
from tasks.schema import Serve
from tasks.serving.app import create_app

LIMITS = Serve(max_batch=8, max_wait_ms=1.0, max_images=4, max_upload_mb=1.0, max_queue=16)


@pytest.fixture
def client(digits_bundle: Bundle, settings: Settings) -> Iterator[TestClient]:
    releases.publish(digits_bundle, 7, settings)
    with TestClient(create_app(settings, LIMITS)) as client:
        yield client


def image_parts(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", file) for file in files]


def test_answers_what_the_bundle_predicts(client, digits_bundle, digit_images, png) -> None:
    images = digit_images[1200:1204]
    files = image_parts(*((f"{index}.png", png(image)) for index, image in enumerate(images)))
    answer = client.post("/v1/predict", files=files).json()
    expected, _ = digits_bundle.predict(images)
    assert answer["model_version"] == 7
    assert [one["filename"] for one in answer["predictions"]] == [
        "0.png",
        "1.png",
        "2.png",
        "3.png",
    ]
    for one, probabilities in zip(answer["predictions"], expected, strict=True):
        assert one["label"] == digits_bundle.info.classes[probabilities.argmax()]
        assert one["probability"] == pytest.approx(probabilities.max(), abs=1e-6)
        assert list(one["probabilities"].values()) == pytest.approx(list(probabilities), abs=1e-6)


def test_answers_say_what_the_model_is_not_sure_of(client, digits_bundle, digit_images, png):
    images = digit_images[1200:1264]
    answers = []
    for image in images:
        files = image_parts(("digit.png", png(image)))
        answers += client.post("/v1/predict", files=files).json()["predictions"]
    decision, classes = digits_bundle.info.decision, digits_bundle.info.classes
    for one, probabilities in zip(answers, digits_bundle.predict(images)[0], strict=True):
        assert one["abstain"] == (probabilities.max() < decision.abstain_below)
        likely = {classes[c] for c in np.flatnonzero(probabilities >= decision.set_from)}
        assert set(one["prediction_set"]) == likely | {one["label"]}
        assert one["prediction_set"][0] == one["label"]
    assert {one["abstain"] for one in answers} == {True, False}
    assert len({len(one["prediction_set"]) for one in answers}) > 1
    assert client.get("/v1/model").json()["decision"] == asdict(decision)


def test_answers_say_which_images_are_strange(
    make_bundle, digit_images, png, settings: Settings
) -> None:
    judge = make_bundle(strange_from=0.0).judge
    *_, known = judge(digit_images[1200:1264])
    limit = float(np.quantile(known, 0.9))
    bundle = make_bundle(name="strange", strange_from=limit)
    releases.publish(bundle, 8, settings)
    with TestClient(create_app(settings, LIMITS)) as client:
        answers = []
        for image in digit_images[1200:1264]:
            files = image_parts(("digit.png", png(image)))
            answers += client.post("/v1/predict", files=files).json()["predictions"]
        card = client.get("/v1/model").json()
    assert [one["ood_score"] for one in answers] == pytest.approx(known.tolist(), abs=1e-5)
    for one in answers:
        assert one["strange"] == (one["ood_score"] >= limit)
        # Apart from that it answers as ever: strange and not sure are two things.
        assert one["abstain"] == (one["probability"] < bundle.info.decision.abstain_below)
    assert sum(one["strange"] for one in answers) in (6, 7)
    assert card["ood_score"] == "energy"
    assert card["decision"]["strange_from"] == limit


def test_a_model_without_a_score_calls_nothing_strange(client, digit_images, png) -> None:
    files = image_parts(("digit.png", png(digit_images[1200])))
    (answer,) = client.post("/v1/predict", files=files).json()["predictions"]
    assert answer["ood_score"] is None
    assert answer["strange"] is False
    card = client.get("/v1/model").json()
    assert (card["calibration"], card["ood_score"]) == ("temperature", None)


def test_pixels_are_those_of_the_bundle(client, digits_bundle, png) -> None:
    """Resized, rotated by EXIF, transparent: the server sees what preparation saw."""
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (40, 61, 4), np.uint8), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    photo.save(stream, "PNG", exif=exif)
    expected, _ = digits_bundle.predict(digits_bundle.pixels(stream.getvalue())[None])
    answer = client.post("/v1/predict", files=image_parts(("photo.png", stream.getvalue())))
    got = list(answer.json()["predictions"][0]["probabilities"].values())
    assert got == pytest.approx(list(expected[0]), abs=1e-6)


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return len(data).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ([("file", ("notes.txt", b"hello"))], 422, "notes.txt: not an image"),
        ([("file", ("none.png", b""))], 422, "none.png: empty file (0 bytes)"),
        ([("file", ("bomb.png", huge_png(30_000, 30_000)))], 422, "30000x30000 pixels exceed"),
        ([("file", ("torn.png", huge_png(40, 40)))], 422, "torn.png: broken image"),
        ([("image", ("one.png", b"x"))], 422, "unknown field 'image'"),
        ([("file", (f"{n}.png", b"x")) for n in range(5)], 413, "more than 4 files"),
        ([("file", ("big.png", bytes(1_000_001)))], 413, "larger than 1 MB"),
    ],
)
def test_refuses_clearly(client, files, status: int, said: str) -> None:
    answer = client.post("/v1/predict", files=files)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_refuses_what_is_no_upload(client) -> None:
    answer = client.post("/v1/predict", content=b"\x89PNG", headers={"content-type": "image/png"})
    assert answer.status_code == 415
    assert "'file'" in answer.json()["error"]
    text = client.post("/v1/predict", data={"file": "text"}, files={"other": b""})
    assert text.status_code == 422
    broken = client.post(
        "/v1/predict", content=b"--x", headers={"content-type": "multipart/form-data"}
    )
    assert broken.status_code == 422
    assert client.get("/v1/predict").status_code == 405


def test_a_form_with_no_file_chosen(client) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename=""'
    body = f"--cut\r\n{head}\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--cut--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    answer = client.post("/v1/predict", content=body, headers=kind)
    assert answer.status_code == 422
    assert "no file in the request" in answer.json()["error"]


def test_one_bad_file_refuses_the_request_and_logs_nothing(
    digits_bundle, settings, digit_images, png
) -> None:
    releases.publish(digits_bundle, 1, settings)
    with TestClient(create_app(settings, LIMITS)) as client:
        good = png(digit_images[0])
        files = image_parts(("a.png", good), ("bad.png", b"no"), ("c.png", good), ("d.gif", b""))
        answer = client.post("/v1/predict", files=files)
    assert answer.status_code == 422
    assert [file["filename"] for file in answer.json()["files"]] == ["bad.png", "d.gif"]
    assert open_log(settings.predictions_url).count() == 0


def test_not_ready_before_the_first_release(settings, digits_bundle, digit_images, png) -> None:
    with TestClient(create_app(settings, LIMITS)) as client:
        assert client.get("/health/live").status_code == 200
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "no release" in ready.json()["reason"]
        answer = client.post("/v1/predict", files=image_parts(("x.png", png(digit_images[0]))))
        assert answer.status_code == 503
        assert client.get("/v1/model").status_code == 503


def test_model_card_tells_what_is_served(client, digits_bundle) -> None:
    card = client.get("/v1/model").json()
    assert card["model_version"] == 7
    assert card["bundle_digest"] == digits_bundle.digest
    assert card["classes"] == digits_bundle.info.classes
    assert card["input"]["size"] == 8
    assert card["measurements"]["accuracy"] == digits_bundle.info.measurements.accuracy
    assert card["runtime"]["name"] == "onnxruntime"
    assert card["runs_on"] == "ONNX Runtime"
    assert card["refused"] is None
    assert client.get("/health/ready").json()["model_version"] == 7


def test_page_loads_nothing_from_elsewhere(client) -> None:
    page = client.get("/").text
    assert 'name="file"' in page
    assert "//" not in page.replace("<!doctype html>", "")


def test_openapi_shows_the_upload_field(client) -> None:
    body = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    assert "file" in body["content"]["multipart/form-data"]["schema"]["properties"]


def test_metrics_count_outcomes(client, digit_images, png) -> None:
    client.post("/v1/predict", files=image_parts(("x.png", png(digit_images[0]))))
    client.post("/v1/predict", files=image_parts(("x.png", b"")))
    text = client.get("/metrics").text
    assert 'visionloop_requests_total{outcome="answered"} 1.0' in text
    assert 'visionloop_requests_total{outcome="refused"} 1.0' in text
    assert "visionloop_model_version 7.0" in text


def test_full_house_is_told_to_come_again(digits_bundle, settings, digit_images, png) -> None:
    """With every place taken the answer is 503 at once, not a longer queue."""
    releases.publish(digits_bundle, 1, settings)
    limits = LIMITS.model_copy(update={"max_queue": 2, "max_images": 3})
    with TestClient(create_app(settings, limits)) as client:
        image = png(digit_images[0])
        files = image_parts(*((f"{n}.png", image) for n in range(3)))
        answer = client.post("/v1/predict", files=files)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert client.post("/v1/predict", files=files[:2]).status_code == 200


def test_imports_no_training_stack() -> None:
    """A server is small: neither torch nor mlflow nor prefect, however indirectly."""
    script = (
        "import sys, tasks.serving.server, onnxruntime\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'prefect', 'pandas', 'evidently', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_predictions_are_logged(digits_bundle, settings, digit_images, png) -> None:
    releases.publish(digits_bundle, 3, settings)
    before = datetime.now(UTC)
    with TestClient(create_app(settings, LIMITS)) as client:
        for image in digit_images[1200:1210]:
            client.post("/v1/predict", files=image_parts(("x.png", png(image))))
    window = open_log(settings.predictions_url).window(before, datetime.now(UTC), model_version=3)
    probabilities, embedding = digits_bundle.predict(digit_images[1200:1210])
    np.testing.assert_allclose(window.probabilities, probabilities, atol=1e-6)
    np.testing.assert_allclose(window.embedding, embedding, atol=1e-6)
    np.testing.assert_allclose(
        window.statistics, digits_bundle.reference()["statistics"][:10], atol=1e-6
    )
    assert window.predicted.tolist() == probabilities.argmax(axis=1).tolist()
