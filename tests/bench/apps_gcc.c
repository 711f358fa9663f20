/*
 * What the row `gcc` compiles, with -O2 and without any header: containers written once as macros and made for many
 * types, so that the compiler has much to inline, to unroll and to allocate registers for. It is never run.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

void *store_get(u32 bytes);
void store_put(void *p);
void report(const char *what, u32 value);

#define VECTOR(type)                                                                                         \
    struct vector_##type {                                                                                   \
        type *at;                                                                                            \
        u32 used, room;                                                                                      \
    };                                                                                                       \
    static void vector_##type##_grow(struct vector_##type *v)                                                \
    {                                                                                                        \
        u32 room = v->room ? v->room * 2 : 8;                                                                \
        type *at = store_get(room * sizeof(type));                                                           \
        for (u32 i = 0; i < v->used; i++)                                                                    \
            at[i] = v->at[i];                                                                                \
        store_put(v->at);                                                                                    \
        v->at = at;                                                                                          \
        v->room = room;                                                                                      \
    }                                                                                                        \
    void vector_##type##_push(struct vector_##type *v, type x)                                               \
    {                                                                                                        \
        if (v->used == v->room)                                                                              \
            vector_##type##_grow(v);                                                                         \
        v->at[v->used++] = x;                                                                                \
    }

#define SORT(type)                                                                                           \
    static void sort_##type##_insertion(type *a, u32 n)                                                      \
    {                                                                                                        \
        for (u32 i = 1; i < n; i++) {                                                                        \
            type x = a[i];                                                                                   \
            u32 j = i;                                                                                       \
            for (; j && a[j - 1] > x; j--)                                                                   \
                a[j] = a[j - 1];                                                                             \
            a[j] = x;                                                                                        \
        }                                                                                                    \
    }                                                                                                        \
    void sort_##type(type *a, u32 n)                                                                         \
    {                                                                                                        \
        while (n > 16) {                                                                                     \
            type pivot = a[n / 2];                                                                           \
            u32 low = 0, high = n - 1;                                                                       \
            for (;;) {                                                                                       \
                while (a[low] < pivot)                                                                       \
                    low++;                                                                                   \
                while (pivot < a[high])                                                                      \
                    high--;                                                                                  \
                if (low >= high)                                                                             \
                    break;                                                                                   \
                type t = a[low];                                                                             \
                a[low++] = a[high];                                                                          \
                a[high--] = t;                                                                               \
            }                                                                                                \
            sort_##type(a + low, n - low);                                                                   \
            n = low;                                                                                         \
        }                                                                                                    \
        sort_##type##_insertion(a, n);                                                                       \
    }                                                                                                        \
    void sort_##type##_heap(type *a, u32 n)                                                                  \
    {                                                                                                        \
        for (u32 start = n / 2, end = n; end > 1;) {                                                         \
            if (start)                                                                                       \
                start--;                                                                                     \
            else {                                                                                           \
                type t = a[--end];                                                                           \
                a[end] = a[0];                                                                               \
                a[0] = t;                                                                                    \
            }                                                                                                \
            for (u32 root = start, child; (child = 2 * root + 1) < end; root = child) {                      \
                type t = a[root];                                                                            \
                child += child + 1 < end && a[child] < a[child + 1];                                         \
                if (t >= a[child])                                                                           \
                    break;                                                                                   \
                a[root] = a[child];                                                                          \
                a[child] = t;                                                                                \
            }                                                                                                \
        }                                                                                                    \
    }

#define TABLE(key, value)                                                                                    \
    struct table_##key##_##value {                                                                           \
        struct {                                                                                             \
            key k;                                                                                           \
            value v;                                                                                         \
            u8 used;                                                                                         \
        } slot[256];                                                                                         \
        u32 count;                                                                                           \
    };                                                                                                       \
    static u32 table_##key##_##value##_find(const struct table_##key##_##value *t, key k)                    \
    {                                                                                                        \
        u64 hash = (u64)k * 0x9e3779b97f4a7c15ull;                                                           \
        u32 at = (u32)(hash >> 40) % 256;                                                                    \
        while (t->slot[at].used && t->slot[at].k != k)                                                       \
            at = (at + 1) % 256;                                                                             \
        return at;                                                                                           \
    }                                                                                                        \
    value table_##key##_##value##_add(struct table_##key##_##value *t, key k, value v)                       \
    {                                                                                                        \
        u32 at = table_##key##_##value##_find(t, k);                                                         \
        if (!t->slot[at].used) {                                                                             \
            if (t->count == 255)                                                                             \
                report("a table is full", t->count);                                                         \
            t->slot[at].used = 1;                                                                            \
            t->slot[at].k = k;                                                                               \
            t->slot[at].v = 0;                                                                               \
            t->count++;                                                                                      \
        }                                                                                                    \
        return t->slot[at].v += v;                                                                           \
    }                                                                                                        \
    value table_##key##_##value##_sum(const struct table_##key##_##value *t, key from, key to)               \
    {                                                                                                        \
        value sum = 0;                                                                                       \
        for (u32 i = 0; i < 256; i++)                                                                        \
            if (t->slot[i].used && t->slot[i].k >= from && t->slot[i].k < to)                                \
                sum += t->slot[i].v;                                                                         \
        return sum;                                                                                          \
    }

#define MATRIX(type, n)                                                                                      \
    void matrix_##type##_##n(type to[n][n], type a[n][n], type b[n][n])                                      \
    {                                                                                                        \
        for (u32 i = 0; i < n; i++)                                                                          \
            for (u32 j = 0; j < n; j++) {                                                                    \
                type sum = 0;                                                                                \
                for (u32 k = 0; k < n; k++)                                                                  \
                    sum += a[i][k] * b[k][j];                                                                \
                to[i][j] = sum;                                                                              \
            }                                                                                                \
    }                                                                                                        \
    type determinant_##type##_##n(type m[n][n])                                                              \
    {                                                                                                        \
        type result = 1;                                                                                     \
        for (u32 i = 0; i < n; i++) {                                                                        \
            if (m[i][i] == 0)                                                                                \
                return 0;                                                                                    \
            result *= m[i][i];                                                                               \
            for (u32 j = i + 1; j < n; j++) {                                                                \
                type factor = m[j][i] / m[i][i];                                                             \
                for (u32 k = i; k < n; k++)                                                                  \
                    m[j][k] -= factor * m[i][k];                                                             \
            }                                                                                                \
        }                                                                                                    \
        return result;                                                                                       \
    }

#define FOR_ALL_TYPES(what)                                                                                  \
    what(u8) what(u16) what(u32) what(u64) what(short) what(int) what(float) what(double)
#define MATRICES(type) MATRIX(type, 3) MATRIX(type, 4) MATRIX(type, 8) MATRIX(type, 30)
#define TABLES(key)                                                                                          \
    TABLE(key, u8) TABLE(key, u16) TABLE(key, u32) TABLE(key, u64) TABLE(key, int) TABLE(key, double)

FOR_ALL_TYPES(VECTOR)
FOR_ALL_TYPES(SORT)
FOR_ALL_TYPES(MATRICES)
TABLES(u8)
TABLES(u16)
TABLES(u32)
TABLES(u64)
TABLES(int)

/* Expressions of digits, + - * / and brackets: recursive descent, and what a switch becomes. */
static int expression(const char **text);

static int primary(const char **text)
{
    int v = 0;
    if (**text == '(') {
        ++*text;
        v = expression(text);
        *text += **text == ')';
        return v;
    }
    while (**text >= '0' && **text <= '9')
        v = v * 10 + *(*text)++ - '0';
    return v;
}

static int product(const char **text)
{
    int v = primary(text);
    for (;;)
        switch (**text) {
        case '*':
            ++*text;
            v *= primary(text);
            break;
        case '/': {
            ++*text;
            int d = primary(text);
            if (d == 0)
                report("division by zero", (u32)v);
            else
                v /= d;
            break;
        }
        default:
            return v;
        }
}

static int expression(const char **text)
{
    int v = product(text);
    while (**text == '+' || **text == '-')
        v += *(*text)++ == '+' ? product(text) : -product(text);
    return v;
}

int evaluate(const char *text)
{
    return expression(&text);
}
