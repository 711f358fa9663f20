#!/usr/bin/env python3
"""Rules of the source tree that no compiler checks.

  check.py layout ROOT      the top level holds the modules and nothing a reader would have to explain
  check.py includes ROOT    #include goes down only: host <- shadowpt <- ringcomp <- bt <- monitor, devmodel on host
  check.py headers ROOT CC  each public header compiles alone, with CC
  check.py units ROOT       each module has a unit test
  check.py format ROOT      clang-format has nothing to change (skipped when it is missing)
"""
import os, re, shutil, subprocess, sys

MODULES = {  # what a module's files may include
    'host': {'host'},
    'shadowpt': {'host', 'shadowpt'},
    'ringcomp': {'host', 'shadowpt', 'ringcomp'},
    'devmodel': {'host', 'devmodel'},
    'bt': {'host', 'shadowpt', 'ringcomp', 'bt'},
    'monitor': {'host', 'shadowpt', 'ringcomp', 'devmodel', 'bt', 'monitor'},
}
TOP_LEVEL = set(MODULES) | {'tests', 'meson.build', 'README.md', 'LICENSE'}
NO_NAMES = re.compile(r'(^|[_/])(utils?|misc|common|helpers?)\.[chS]$')


def tracked(root):
    """Files git knows; without git (an unpacked archive) all files outside build directories."""
    p = subprocess.run(['git', '-C', root, 'ls-files', '-z'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if p.returncode == 0 and p.stdout:
        return [f for f in p.stdout.decode().split('\0') if f and os.path.exists(os.path.join(root, f))]
    found = []
    for directory, subdirs, files in os.walk(root):
        subdirs[:] = [d for d in subdirs if d != '.git' and not d.startswith('build')]
        found += [os.path.relpath(os.path.join(directory, f), root) for f in files]
    return found


def layout(root):
    problems = []
    for path in tracked(root):
        top = path.split('/')[0]
        if top not in TOP_LEVEL and not top.startswith('.'):
            problems.append('%s: nothing else belongs to the top level' % path)
        if NO_NAMES.search(path):
            problems.append('%s: the name says nothing' % path)
    for module in MODULES:
        if not os.path.exists(os.path.join(root, module, 'README.md')):
            problems.append('%s has no README.md' % module)
    return problems


def includes(root):
    problems = []
    for path in tracked(root):
        module = path.split('/')[0]
        if module not in MODULES or not path.endswith(('.c', '.h', '.S')):
            continue
        for number, line in enumerate(open(os.path.join(root, path), encoding='utf-8'), 1):
            match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
            if not match:
                continue
            name = match.group(1)
            first = name.split('/')[0]
            if '..' in name.split('/'):
                problems.append('%s:%d: %s leaves its module' % (path, number, name))
            elif '/' in name and first in MODULES and first not in MODULES[module]:
                problems.append('%s:%d: %s may not include %s' % (path, number, module, first))
            elif name.endswith('.c'):
                problems.append('%s:%d: includes a source file' % (path, number))
    return problems


def headers(root, cc):
    problems, count = [], 0
    for path in tracked(root):
        match = re.match(r'(\w+)/include/.*\.h$', path)
        if not match or match.group(1) not in MODULES:
            continue
        flags = ['-I%s/%s/include' % (root, m) for m in sorted(MODULES[match.group(1)])]
        p = subprocess.run(cc + ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', '-x', 'c', *flags, '-'],
                           input='#include "%s"\n' % path.split('/include/')[1], text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        count += 1
        if p.returncode:
            problems.append('%s does not compile alone:\n%s' % (path, p.stdout))
    if count < len(MODULES):
        problems.append('only %d public headers found' % count)
    return problems


def units(root):
    files = [f for f in tracked(root) if f.startswith('tests/unit/')]
    return ['%s has no unit test' % m for m in MODULES
            if not any(re.match(r'tests/unit/test_%s(_\w+)?\.c$' % m, f) for f in files)]


def formatted(root):
    tool = shutil.which('clang-format-14') or shutil.which('clang-format')
    if not tool:
        print('skipped: clang-format is not installed')
        sys.exit(77)
    version = subprocess.run([tool, '--version'], stdout=subprocess.PIPE, text=True).stdout
    if ' 14.' not in version:
        print('skipped: the tree is formatted with clang-format 14, here is', version.strip())
        sys.exit(77)
    files = [os.path.join(root, f) for f in tracked(root) if f.endswith(('.c', '.h'))]
    p = subprocess.run([tool, '--dry-run', '--Werror', '--style=file', *files], stderr=subprocess.PIPE, text=True)
    return sorted(set(re.findall(r'^(\S+?):\d+:\d+: error', p.stderr, re.M))) or ([p.stderr] if p.returncode else [])


def main():
    what, root = sys.argv[1], os.path.abspath(sys.argv[2])
    problems = {'layout': layout, 'includes': includes, 'units': units, 'format': formatted}.get(
        what, lambda r: headers(r, sys.argv[3:]))(root)
    print('\n'.join(problems) or what + ': nothing to complain about')
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
