"""One rule for marks beside Chinese, for what is rendered and for what is read."""

import pytest

from crnn.marks import kept, quoted, typeset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("窗口.", "窗口。"),
        ("例子 . . . . 5", "例子. . . . 5"),
        ("first argument，when", "first argument,when"),
        ("maintree：C:/texlive（2022）", "maintree:C:/texlive(2022)"),
        ("is～in～conflict with", "is~in~conflict with"),
        ("9:36～1", "9:36～1"),
        ("选项～is~的", "选项～is～的"),
        ("名称 a～b", "名称 a~b"),
        ("几节中,将会", "几节中，将会"),
        ("时间:12", "时间：12"),
        ("他(从无到有)决定", "他（从无到有）决定"),
        ("函数（main）和x", "函数(main)和x"),
        ("调用readLine()和main(x)。", "调用readLine()和main(x)。"),
        ("新浪.com", "新浪.com"),
        ("1:30, 3.5 (a)", "1:30, 3.5 (a)"),
        ("Windows，中", "Windows，中"),
        ("公序良（ 见习期 ）不愉", "公序良（见习期）不愉"),
        ('风筝会"at"，', "风筝会“at”，"),
        ('"中国"和"at"之间', "“中国”和“at”之间"),
        ("1.53 prep 第五日 , 好", "1.53 prep 第五日，好"),
        ('名为 "Dialog1" 的"新"', '名为 "Dialog1" 的“新”'),
        ('能" 的 "abc" x', '能”的 "abc" x'),
        ('no Chinese , "here"', 'no Chinese , "here"'),
        ("长江 ~ 黄河", "长江～黄河"),
        ("8:30 ~ 9:15开会", "8:30～9:15开会"),
        ("在~/data里", "在~/data里"),
        ("1 ~ 2", "1 ~ 2"),
        ("他说'好的'。", "他说‘好的’。"),
        ("老王's店", "老王's店"),
        ("③ 中国 → 日本", "③中国→日本"),
        ("【 注意 】 2年", "【注意】2年"),
        ("泰达“分娩’、储蓄", "泰达‘分娩’、储蓄"),
        ("他说“好’的”。", "他说“好’的”。"),
        ("麟“起、长官。“轧带", "麟“起、长官。”轧带"),
        ("“好”和“坏”，“也", "“好”和“坏”，“也"),
        ("或 “etc” 分区", "或“etc”分区"),
        ("crypt(8）配置", "crypt(8)配置"),
        ("不是乖觉-- 辉煌", "不是乖觉——辉煌"),
        ("abc -- 中文", "abc——中文"),
        ("见白头喜。 --《增广贤文》", "见白头喜。——《增广贤文》"),
        ("使用--help选项，i--表示减一", "使用--help选项，i--表示减一"),
        ("<!--中文-->", "<!--中文-->"),
        ("a -- b", "a -- b"),
        ('之以礼。"-—《论语》', "之以礼。”——《论语》"),
        ('他说:"好。"', "他说：“好。”"),
        ("好。——张三", "好。——张三"),
        ("北京—上海。一个", "北京—上海。一个"),
        ("零下—5度", "零下—5度"),
        ("一. 总则", "一．总则"),
        ("二十一。总则", "二十一．总则"),
        ("十一五。总则", "十一五。总则"),
        ("他很一.", "他很一。"),
        ("娜'the'。主", "娜‘the’。主"),
        ("don't say 'yes'中文", "don't say ‘yes’中文"),
        ("好”和坏”的", "好“和坏”的"),
        ("他说”。她“好”", "他说”。她“好”"),
        ("72.3％几", "72.3%几"),
        ("word、 9", "word、9"),
        ("读“新、旧” 36.6度 [a]", "读“新、旧”36.6度 [a]"),
        ("the “new” 3 度", "the “new” 3 度"),
        ("张三 · 李四 · A · B", "张三·李四·A · B"),
        ("价￥ 91.4元", "价￥91.4元"),
        ("《Fate》 (x)", "《Fate》(x)"),
        ("“Hi”, he said … now", "“Hi”, he said … now"),
        ('俯首!"', "俯首！”"),
        ('读“新款 X" 和旧款', "读“新款 X”和旧款"),
        ('屏幕“长 5" 宽”的', '屏幕“长 5" 宽”的'),
        ("“甲”和”乙”的", "“甲”和“乙”的"),
        ("重54．8公斤", "重54.8公斤"),
    ],
)
def test_marks_that_touch_chinese_are_full_width_without_spaces_and_pairs_go_by_what_they_hold(text, expected):
    assert typeset(text) == expected
    assert typeset(expected) == expected
    assert len(expected.replace(" ", "")) == len(text.replace(" ", ""))
    assert [text[i] for i in kept(text, expected) if text[i].isalnum()] == [c for c in expected if c.isalnum()]
    assert len(kept(text, expected)) == len(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("二○○八年至二O一二年", "二〇〇八年至二〇一二年"),
        ("二○，三○四", "二○，三〇四"),
        ("第○一，O二", "第○一，O二"),
    ],
)
def test_circle_between_chinese_digits_is_their_zero(text, expected):
    assert typeset(text) == expected
    assert kept(text, expected) == list(range(len(text)))


@pytest.mark.parametrize(
    ("text", "expected", "places"),
    [
        ("好。—张三", "好。——张三", [0, 1, 2, 2, 3, 4]),
        ("“好。” — 张三 说", "“好。”——张三 说", [0, 1, 2, 3, 5, 5, 7, 8, 9, 10]),
        ("—鲁迅", "——鲁迅", [0, 0, 1, 2]),
        ("人心。一《谚语》", "人心。——《谚语》", [0, 1, 2, 3, 3, 4, 5, 6, 7]),
        ("“好。”一 张三", "“好。”——张三", [0, 1, 2, 3, 4, 4, 6, 7]),
        ("“好。” — -，张三", "“好。”——，张三", [0, 1, 2, 3, 5, 7, 8, 9, 10]),
        ("《好》一 - 张三", "《好》——- 张三", [0, 1, 2, 3, 3, 5, 6, 7, 8]),
        ("“好”一—张三", "“好”——张三", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_one_dash_at_the_beginning_or_behind_a_sentence_is_two_at_its_place(text, expected, places):
    assert typeset(text) == expected
    assert typeset(expected) == expected
    assert kept(text, expected) == places


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('The *figure" environment', 'The "figure" environment'),
        ('says (*Glass," he said', 'says ("Glass," he said'),
        ('2 *3 and "so"', '2 *3 and "so"'),
        ('* item "one"', '* item "one"'),
        ('int *p = "x"', 'int *p = "x"'),
        ('a*b"', 'a*b"'),
    ],
)
def test_a_star_before_a_closing_quotation_mark_opens(text, expected):
    assert quoted(text) == expected
