#!/usr/bin/env python3
"""Fails when a row of ringcomp's table of sensitive instructions has no case in the guest `sensitive`, when the
guest has a case for no row, or when either side names one twice.

usage: check_rows.py sensitive.def sensitive.c
"""
import re, sys


def pairs(path, macro):
    text = re.sub(r'/\*.*?\*/', '', open(path).read(), flags=re.S)
    found = re.findall(r'^\s*%s\(\s*"([^"]*)"\s*,\s*"([^"]*)"' % macro, text, re.M)
    return found


def main():
    rows, cases = pairs(sys.argv[1], 'RC_SENSITIVE'), pairs(sys.argv[2], 'CASE')
    problems = []
    if len(rows) < 17:
        problems.append('only %d rows found in the table: is it still written RC_SENSITIVE("...", "...", ...)?' % len(rows))
    for name, found in (('row', rows), ('case', cases)):
        problems += ['%s given twice: %s %s' % (name, *p) for p in sorted(set(found)) if found.count(p) > 1]
    problems += ['row without a case: %s %s' % r for r in rows if r not in cases]
    problems += ['case without a row: %s %s' % c for c in cases if c not in rows]
    print('\n'.join(problems) or '%d rows, a case for each' % len(rows))
    sys.exit(bool(problems))


main()
