"""Signatures of webhooks, and the secrets that they are made with."""

import pytest

from meter.rating.budgets.webhook_signature import signature_headers
from meter.rating.budgets.webhook_signature import webhook_keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_signature_is_that_of_the_example_of_the_convention():
    headers = signature_headers(
        webhook_keys(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_of_several_secrets_signs():
    other = "whsec_" + 8 * "AAAA"
    both = signature_headers(webhook_keys(f" {SECRET}\n{other} "), "msg_1", 1, b"{}")["webhook-signature"]
    alone = [signature_headers(webhook_keys(each), "msg_1", 1, b"{}")["webhook-signature"] for each in (SECRET, other)]
    assert both.split() == alone


@pytest.mark.parametrize("size", [24, 64])
def test_keys_of_24_to_64_bytes_are_accepted(size):
    assert [len(key) for key in webhook_keys("whsec_" + "A" * (size // 3 * 4) + ["", "AA=="][size % 3])] == [size]


@pytest.mark.parametrize("secret", ["", " ", "x", "whsec_", "whsec_é", "whsec_AAAA", "WHSEC_" + 8 * "AAAA"])
def test_bad_secret_is_refused_and_not_repeated(secret):
    with pytest.raises(ValueError, match="secret") as caught:
        webhook_keys(secret)
    assert not secret.strip() or secret not in str(caught.value).replace('"whsec_"', "")
