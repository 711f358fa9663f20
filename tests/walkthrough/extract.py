#!/usr/bin/env python3
"""The walk-through: passages that stand above the code they explain, in the order of their numbers.

  extract.py SOURCE-ROOT            print them all
  extract.py --check SOURCE-ROOT    fail on a passage that is not closed, a number used twice, a number outside the
                                    chapters, or a passage without text

A passage is a comment that begins with /*T:nnn Title and ends with :*/ on a line of its own.
"""
import os, re, subprocess, sys

CHAPTERS = [(100, 'Preparation'), (200, 'Boot'), (300, 'Translation'), (400, 'Memory'), (500, 'Rings'), (600, 'Devices'),
            (700, 'Host'), (800, 'Mastery'), (900, None)]
OPEN = re.compile(r'/\*T:(\d+)[ \t]+(\S.*?)\s*$')
SUFFIXES = ('.c', '.h', '.S', '.def')


def sources(root):
    for directory, subdirs, files in os.walk(root):
        subdirs[:] = sorted(d for d in subdirs if not d.startswith(('.', 'build')))
        for name in sorted(files):
            if name.endswith(SUFFIXES):
                yield os.path.join(directory, name)


def passages(root):
    """Yields (number, title, text lines, place, problem or None)."""
    for path in sources(root):
        lines = open(path, encoding='utf-8').read().split('\n')
        i = 0
        while i < len(lines):
            if '/*T:' not in lines[i]:
                i += 1
                continue
            place = '%s:%d' % (os.path.relpath(path, root), i + 1)
            match = OPEN.search(lines[i])
            if not match:
                yield 0, '', [], place, 'not of the form /*T:nnn Title'
                i += 1
                continue
            text, problem, j = [], 'is not closed by :*/', i + 1
            while j < len(lines):
                if ':*/' in lines[j]:
                    problem = None
                    break
                if '*/' in lines[j] or '/*T:' in lines[j]:
                    break
                text.append(re.sub(r'^\s*\*? ?', '', lines[j]).rstrip())
                j += 1
            yield int(match.group(1)), match.group(2), text, place, problem
            i = j + 1 if problem is None else i + 1


def check(found):
    problems, seen = [], {}
    for number, title, text, place, problem in found:
        if problem:
            problems.append('%s: %s' % (place, problem))
        elif not CHAPTERS[0][0] <= number < CHAPTERS[-1][0]:
            problems.append('%s: %d is in no chapter' % (place, number))
        elif number in seen:
            problems.append('%s: number %d is taken by %s' % (place, number, seen[number]))
        elif not any(line.strip() for line in text):
            problems.append('%s: a passage without text' % place)
        seen.setdefault(number, place)
    if not found:
        problems.append('no passage at all')
    return problems


def show(found):
    chapter = None
    for number, title, text, place, _ in sorted(found, key=lambda p: p[0]):
        name = [c for start, c in CHAPTERS if start <= number][-1]
        if name != chapter:
            chapter = name
            print('\n%s\n%s' % (name.upper(), '=' * len(name)))
        print('\n%d  %s\n     (%s)\n' % (number, title, place))
        print('\n'.join('     ' + line for line in text).rstrip())


def main():
    checking = sys.argv[1] == '--check'
    found = list(passages(sys.argv[-1]))
    problems = check(found)
    if problems:
        print('\n'.join(problems))
        sys.exit(1)
    if checking:
        print('%d passages' % len(found))
    else:
        show(found)


if __name__ == '__main__':
    main()
