"""Each count of the ledger is made non-zero, and stays zero where it should. Needs no cluster."""

import base64
import hashlib
import hmac

import pytest
from book import Book

SECRET, BODY = b"s" * 32, b'{"id":"e"}'
CLEAN = {"lost": 0, "phantom": 0, "wrong": 0, "repeated": 0}


@pytest.fixture
def book():
    """One accepted event `e`, owed to /0 and not to /1."""
    book = Book(SECRET)
    book.publish("e", BODY, ["/0"])
    book.accepted.add("e")
    return book


def arrive(book, path="/0", event="e", name="dlv_e", body=BODY, secret=SECRET):
    signed = f"{name}.1790000000.".encode() + body
    signature = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    book.arrive(path, {"ce-id": event, "webhook-id": name, "webhook-timestamp": "1790000000", "webhook-signature": signature}, body)


def counts(book):
    return {name: count for name, count in book.verdict().items() if name in CLEAN}


def test_what_arrives_is_clean(book):
    arrive(book)
    assert counts(book) == CLEAN


def test_what_was_accepted_and_does_not_arrive_is_lost(book):
    assert counts(book) == CLEAN | {"lost": 1}


def test_what_had_no_answer_may_arrive_or_not(book):
    arrive(book)
    book.publish("unknown", BODY, ["/0"])
    assert counts(book) == CLEAN
    arrive(book, event="unknown", name="dlv_unknown")
    assert counts(book) == CLEAN


def test_what_was_never_published_or_is_not_wanted_is_a_phantom(book):
    arrive(book)
    arrive(book, event="never", name="dlv_never")
    arrive(book, path="/1", name="dlv_1")
    assert counts(book) == CLEAN | {"phantom": 2}


@pytest.mark.parametrize("damage", [{"body": b'{"id":"e "}'}, {"secret": b"t" * 32}])
def test_another_body_or_a_bad_signature_is_wrong(book, damage):
    arrive(book, **damage)
    assert counts(book) == CLEAN | {"wrong": 1}


def test_a_repeat_is_counted_and_has_the_same_id(book):
    arrive(book)
    arrive(book)
    assert counts(book) == CLEAN | {"repeated": 1}
    arrive(book, name="dlv_other")
    assert counts(book) == CLEAN | {"repeated": 2, "wrong": 1}


def test_one_id_for_two_deliveries_is_wrong(book):
    book.publish("f", BODY, ["/0"])
    arrive(book)
    arrive(book, event="f")
    assert counts(book) == CLEAN | {"wrong": 1}
