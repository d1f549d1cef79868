#!/bin/sh
# Makes lib@NAME@.so.
set -eu
cd "$(dirname "$0")"
cc -std=c11 -shared -fPIC -O2 -Wall -Wextra -Wpedantic -Werror plugin.c -o lib@NAME@.so
