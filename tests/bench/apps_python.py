# What the row `python` runs: the interpreter's loop, calls, containers, strings, numbers. Each part checks itself against
# a fact of arithmetic.
def queens(n, row=0, columns=0, up=0, down=0):
    if row == n:
        return 1
    found = 0
    for c in range(n):
        if not (columns >> c & 1 or up >> (row + c) & 1 or down >> (row - c + n) & 1):
            found += queens(n, row + 1, columns | 1 << c, up | 1 << (row + c), down | 1 << (row - c + n))
    return found


def primes_below(n):
    composite = bytearray(n)
    for i in range(2, int(n ** 0.5) + 1):
        if not composite[i]:
            for j in range(i * i, n, i):
                composite[j] = 1
    return n - 2 - sum(composite[2:])


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def moved(self, dx, dy):
        return Point(self.x + dx, self.y + dy)


def walk(steps):
    p = Point(0.0, 0.0)
    for i in range(steps):
        p = p.moved(0.5, -0.25 if i % 2 else 0.25)
    return p


def words(n):
    seen = {}
    for i in range(n):
        key = 'word%d' % (i * 7919 % 1000)
        seen[key] = seen.get(key, 0) + 1
    return sorted(seen.items(), key=lambda item: (-item[1], item[0]))


def factorial(n):
    return n * factorial(n - 1) if n else 1


assert queens(9) == 352
assert primes_below(3000000) == 216816
assert walk(1000000).x == 500000.0
assert len(words(700000)) == 1000 and words(1000)[0][1] == 1
assert len(str(factorial(900))) == 2270
