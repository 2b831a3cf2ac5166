/* hash64: known values of XXH64 with seed 0; pieces give what the whole gives. */
#include "testing.h"

#include "base/hash.h"

static void known_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t hash;
    } cases[] = {
        {"", 0xef46db3751d8e999u},
        {"a", 0xd24ec4f1a98c6e5bu},
        {"abc", 0x44bc2cf5ad770999u},
        {"Nobody inspects the spammish repetition", 0xfbcea83c8a378bf1u},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(hash64_of(cases[i].text, strlen(cases[i].text)) == cases[i].hash);
}

static void pieces_and_flips(void **state)
{
    (void)state;
    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7 + i / 9);
    for (size_t n = 0; n <= sizeof data; n++) {
        const uint64_t whole = hash64_of(data, n);
        for (size_t step = 1; step < 80; step += 13) {
            hash64 h = {0};
            for (size_t at = 0; at < n; at += step) hash64_add(&h, data + at, n - at < step ? n - at : step);
            assert_true(hash64_get(&h) == whole);
        }
        if (n == 0) continue;
        data[n / 2] ^= 0x10;
        assert_true(hash64_of(data, n) != whole);
        data[n / 2] ^= 0x10;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_values), cmocka_unit_test(pieces_and_flips)};
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
