"""Callbacks that the fuzzer's servers call."""

from __future__ import annotations


def reverse(request):
    return request[::-1]


def upper(request, reply):
    for piece in request:
        reply.write(piece.upper())
