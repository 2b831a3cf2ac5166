#include "testing.h"

#include "base/utf8.h"

static void decodes_every_scalar_value(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp < 0xe000) continue;
        char s[4];
        uint32_t back = 0;
        int n = utf8_encode(cp, s);
        assert_int_equal(utf8_decode(s, (size_t)n, &back), n);
        assert_int_equal(back, cp);
        for (int k = 1; k < n; k++) assert_true(utf8_is_prefix(s, (size_t)k));
        assert_false(utf8_is_prefix(s, (size_t)n));
    }
}

static void refuses_malformed_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t n;
        int invalid;
    } bad[] = {
        {"\x80", 1, 1},         {"\xc0\x80", 2, 1},         {"\xe0\x80\x80", 3, 1},
        {"\xed\xa0\x80", 3, 1}, {"\xf4\x90\x80\x80", 4, 1}, {"\xf5\x80\x80\x80", 4, 1},
        {"\xe2\x96", 2, 2},     {"\xf0\x9f\x98", 3, 3},     {"\xe2\x28\xa1", 3, 1},
        {"\xff", 1, 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t cp;
        assert_int_equal(utf8_decode(bad[i].s, bad[i].n, &cp), 0);
        assert_int_equal(utf8_invalid_length(bad[i].s, bad[i].n), bad[i].invalid);
        assert_false(utf8_valid(bad[i].s, bad[i].n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_every_scalar_value),
        cmocka_unit_test(refuses_malformed_sequences),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
