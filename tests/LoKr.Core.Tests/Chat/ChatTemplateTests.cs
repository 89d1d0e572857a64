using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Chat;

public sealed class ChatTemplateTests
{
    public static TheoryData<string> Templates => Fixtures.Cases("chat", folder => File.Exists(Path.Combine(folder, "cases.json")));

    [Theory]
    [MemberData(nameof(Templates))]
    public void Published_template_renders_every_conversation_as_transformers_does(string name)
    {
        (ChatTemplate template, JsonNode cases, DateTime now) = Read(name);
        int compared = 0;
        foreach (JsonNode? row in cases["rows"]!.AsArray())
        {
            string Render() => template.Render(Messages(row!), row!["add_generation_prompt"]!.GetValue<bool>(), Variables(row!), now).Text;
            if (row!["text"] is JsonNode text)
            {
                Assert.Equal(text.GetValue<string>(), Render());
            }
            else
            {
                LoKrException error = Assert.Throws<LoKrException>(Render);
                Assert.Equal(ErrorIds.ChatTemplateFailed, error.ErrorId);
                if (row["error_by"]?.GetValue<string>() == "raise_exception")
                {
                    Assert.Contains(": " + row["error"]!.GetValue<string>(), error.Message, StringComparison.Ordinal);
                }
            }

            compared++;
        }

        Assert.True(compared > 0);
    }

    [Theory]
    [MemberData(nameof(Templates))]
    public void Published_template_gives_the_answers_of_every_conversation(string name)
    {
        (ChatTemplate template, JsonNode cases, DateTime now) = Read(name);
        JsonArray training = JsonNode.Parse(File.ReadAllText(Fixtures.Require("chat", name, "training.json")))!.AsArray();
        Assert.NotEmpty(training);
        foreach (JsonNode? expected in training)
        {
            JsonNode row = cases["rows"]!.AsArray().First(row => row!["name"]!.GetValue<string>() == expected!["name"]!.GetValue<string>()
                && !row["add_generation_prompt"]!.GetValue<bool>())!;
            ChatAnswers answers = template.FindAnswers(Messages(row), Variables(row), now);
            Assert.Equal(expected!["method"]!.GetValue<string>() == "generation", template.MarksAnswers);
            Assert.Equal(expected["spans_utf16"]!.AsArray().Select(static span => (span![0]!.GetValue<int>(), span[1]!.GetValue<int>())), answers.Spans);
            Assert.Equal(
                expected["without_span"]!.AsArray().Select(static answer => (answer!["message"]!.GetValue<int>(), answer["why"]!.GetValue<string>())),
                answers.WithoutSpan);
        }
    }

    [Theory]
    [InlineData("{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 1 / 2 }}", "6 1 2 0.5")]
    [InlineData("{{ 'a' ~ 1 ~ none ~ true ~ 1.0 }}|{{ missing }}|{{ none }}", "a1NoneTrue1.0||None")]
    [InlineData("{{ [1, 'a', none, {'b': 2.5}] }} {{ 'it\\'s' | list | length }}", "[1, 'a', None, {'b': 2.5}] 4")]
    [InlineData("{{ 'abcd'[1:-1] }} {{ 'abcd'[::-1] }} {{ [1,2,3][-1] }} {{ 'abc'[5:] }}|{{ [1][4] }}", "bc dcba 3 |")]
    [InlineData("{{ 'x' if false }}{{ 'y' if 1 == true else 'z' }} {{ 1 < 2 < 2 }} {{ 'b' in 'abc' }} {{ 'k' not in {'k': 1} }}", "y False True False")]
    [InlineData("{% for k, v in {'a': 1, 'b': 2}.items() if v > 0 %}{{ loop.index }}{{ k }}{{ v }}{% if not loop.last %},{% endif %}{% else %}none{% endfor %}", "1a1,2b2")]
    [InlineData("{% for x in [] %}a{% else %}none{% endfor %}{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "none02")]
    [InlineData("{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "231")]
    [InlineData("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3")]
    [InlineData("{% macro m(a, b='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{% set c = 'C' %}{{ m(1) }} {{ m(1, b=2) | trim }}", "1xC 12C")]
    [InlineData("{% set s %} a {{ 1 }} {% endset %}[{{ s }}]", "[ a 1 ]")]
    [InlineData("a\n  {% if true %}\n  b\n  {%- endif %}\n{{ 1 -}}\n c {#- x #}\n", "a\n  b1c")]
    [InlineData("{{ {'a': [1, 'ü\"<'], 'b': {}} | tojson }} {{ [1, []] | tojson(indent=2) }}", "{\"a\": [1, \"ü\\\"<\"], \"b\": {}} [\n  1,\n  []\n]")]
    [InlineData("{{ ' a b '.strip().split(' ') | join('-') }} {{ 'aXbX'.replace('X', '', 1) }} {{ 'xxa'.lstrip('x') }} {{ 'ab'.startswith(('b', 'a')) }}", "a-b abX a True")]
    [InlineData("{{ [{'r': 'u', 'n': 2}, {'r': 'a', 'n': 1}] | selectattr('r', 'equalto', 'u') | list | length }}{{ [3, 1] | sort | first }}{{ [3, 1] | min }}", "111")]
    [InlineData("{{ x is defined }} {{ none is none }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ not x is defined }}", "False True True True True True")]
    [InlineData("{{ strftime_now('%d %b %Y, %B') }}", "05 Mar 2026, March")]
    [InlineData("{{ '\U0001F680x'[0] }}{{ '\U0001F680x' | length }}", "\U0001F6802")]
    public void Expressions_and_statements_mean_what_they_mean_in_Jinja(string template, string expected) =>
        Assert.Equal(expected, ChatTemplate.Parse(template).Render([], now: new DateTime(2026, 3, 5, 14, 7, 9)).Text);

    [Theory]
    [InlineData("a\n{% include 'x' %}", "'include'", 2)]
    [InlineData("{{ x | attr('y') }}", "'attr'", 1)]
    [InlineData("\n\n{{ x is escaped }}", "'escaped'", 3)]
    [InlineData("{{ x.__class__.mro() }}", "'mro'", 1)]
    [InlineData("{{ 'a'.encode() }}", "'encode'", 1)]
    [InlineData("\n{% do x.append(1) %}", "'do'", 2)]
    [InlineData("{% block x %}{% endblock %}", "'block'", 1)]
    [InlineData("{% for x in y recursive %}{% endfor %}", "'recursive'", 1)]
    [InlineData("{{ '\\N{DASH}' }}", "'\\N'", 1)]
    public void What_is_not_interpreted_is_refused_with_line_and_feature(string template, string feature, int line)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse(template));
        Assert.Equal(ErrorIds.ChatTemplateUnsupported, error.ErrorId);
        Assert.Contains(feature, error.Message, StringComparison.Ordinal);
        Assert.Contains($"line {line}", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{{ [1, 2] | map('string') }}", "as text")]
    [InlineData("{{ range }}{{ 'a'.upper }}", "as text")]
    [InlineData("{{ 'a' | map('attr', 'b') | list }}", "'attr'")]
    [InlineData("{{ ('<' | safe) * 2 }}", "'*'")]
    [InlineData("{{ ('<' | safe).replace('<', '>') }}", "'replace'")]
    [InlineData("{% if true %}{{ 1 | from_json }}{% endif %}", "'from_json'")]
    [InlineData("{% if true %}{{ 1 is odd_one }}{% endif %}", "'odd_one'")]
    [InlineData("{% set x = {'y': {}} %}{% if true %}{{ x.y.run() }}{% endif %}", "'run'")]
    [InlineData("{{ '{!r}'.format(1) }}", "format")]
    [InlineData("{{ '%e' % 1.5 }}", "'%e'")]
    [InlineData("{{ strftime_now('%c') }}", "'%c'")]
    [InlineData("{{ '\u1FF7'.upper() }}", "capital")]
    public void What_is_told_by_values_only_is_refused_when_it_is_rendered(string template, string feature)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse("\n" + template).Render([]));
        Assert.Equal(ErrorIds.ChatTemplateUnsupported, error.ErrorId);
        Assert.Contains(feature, error.Message, StringComparison.Ordinal);
        Assert.Contains("line 2", error.Message, StringComparison.Ordinal);
    }

    // Numbers, texts and containers as Python computes and prints them; the expected texts are those of Jinja2 3.1.6.
    [Theory]
    [InlineData("{{ 2 ** 70 }} {{ 9223372036854775807 + 1 }} {{ 2 ** -1 }} {{ -7 // 2 }} {{ 7.5 // -2 }} {{ -7.5 % 2 }} {{ 1e16 }} {{ 1e-5 }} {{ 0x1F + 1_000 }}", "1180591620717411303424 9223372036854775808 0.5 -4 -4.0 0.5 1e+16 1e-05 1031")]
    [InlineData("{{ 9007199254740993 == 9007199254740992.0 }} {{ 1 == 1.0 == true }} {{ [1, 2] < [1, 3] }} {{ (1,) == [1] }}", "False True True False")]
    [InlineData("{{ (1, 'a') }} {{ (1,) }} {{ {1: 'x', none: (2, 3)} }} {{ range(1, 4) }} {{ {'a': 1}.items() }} {{ 'a\u00AD\u200B' | list }}", "(1, 'a') (1,) {1: 'x', None: (2, 3)} range(1, 4) dict_items([('a', 1)]) ['a', '\\xad', '\\u200b']")]
    [InlineData("{{ 'ab' * 2 }} {{ 2 * [1] }} {{ '%s-%03d-%.2f' % ('x', 7, 2.675) }} {{ '{:>4}|{0}'.format('a') if false else '{:>4}|{}'.format('a', 1.0) }}", "abab [1, 1] x-007-2.67    a|1.0")]
    [InlineData("{{ 'STRASSE \u00DF'.lower() }} {{ '\u00DFa'.upper() }} {{ '\u039F\u03A3 \u03A3'.lower() }} {{ 'o\\'neil mc-gee'.title() }} {{ 'o\\'neil mc-gee' | title }} {{ 'aBC' | capitalize }}", "strasse \u00DF SSA \u03BF\u03C2 \u03C3 O'Neil Mc-Gee O'neil Mc-Gee Abc")]
    [InlineData("{{ '  a  b c '.split() }} {{ ' a b  c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'l1\nl2\r\nl3'.splitlines() }} {{ 'a-b'.partition('-') }}", "['a', 'b', 'c'] ['a', 'b  c '] ['a,b', 'c'] ['l1', 'l2', 'l3'] ('a', '-', 'b')")]
    [InlineData("{{ 'banana'.find('an', 2) }} {{ 'banana'.count('an') }} {{ 'x'.join(['a', 'b']) }} {{ 'a'.zfill(3) }} {{ 'ab'.replace('', '-') }} {{ 'abc'.removeprefix('a') }}", "3 2 axb 00a -a-b- bc")]
    [InlineData("{{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A'] | sort }} {{ ['b', 'A'] | max }} {{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 1.0, 2] | unique | list }} {{ [2.5, 1] | sum }}", "[3, 2, 1] ['A', 'b'] b [[1, 2], [3, 4], [5]] [1, 2] 3.5")]
    [InlineData("{{ [{'k': 'b', 'v': 1}, {'k': 'a', 'v': 2}, {'k': 'B', 'v': 3}] | groupby('k') | map('first') | list }} {{ {'b': 1, 'A': 2} | dictsort }} {{ [{'a': {'b': 1}}, {}] | map(attribute='a.b', default=0) | list }}", "['a', 'b'] [('A', 2), ('b', 1)] [1, 0]")]
    [InlineData("{{ 'a\nb\n\nc' | indent(2) }} {{ 'a long text here' | truncate(9, leeway=0) }} {{ '12.7x' | int(5) }} {{ '12.7' | int }} {{ 2.5 | round }} {{ 'ff' | int(base=16) }} {{ ' 1e3 ' | float }}", "a\n  b\n\n  c a... 5 12 2.0 255 1000.0")]
    [InlineData("{{ {'b': 1.0, 'a': none} | tojson(separators=(',', ':'), sort_keys=true) }} {{ 'é\U0001F600' | tojson(ensure_ascii=true) }} {{ (1e400, 2) | tojson }} {{ {1: 2, true: 3} | tojson(indent=0) }}", "{\"a\":null,\"b\":1.0} \"\\u00e9\\ud83d\\ude00\" [Infinity, 2] {\n\"1\": 3\n}")]
    public void Numbers_texts_and_containers_are_those_of_Python(string template, string expected) => Assert.Equal(expected, ChatTemplate.Parse(template).Render([]).Text);

    // What is easily rendered otherwise without a word.
    [Theory]
    [InlineData("{{ 'yes' if [] | select }}{{ 'no' if [] | select | list }}", "yes")]
    [InlineData("{% set g = [1, 2, 3] | map('string') %}{{ g | first }}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}", "123")]
    [InlineData("{% set ns = namespace(done=false) %}{% for x in [1, 2, 3] if not ns.done %}{{ x }}{% set ns.done = x == 2 %}{% endfor %}", "12")]
    [InlineData("{% set d = {'items': 5, 'x': 1} %}{{ d.items is defined }} {{ d['items'] }} {{ d.x }} {{ d.items() | list | length }} {{ d.missing is defined }} {{ d.pop is defined }}", "True 5 1 2 False False")]
    [InlineData("{% set ns = namespace(_x=1) %}[{{ ns._x }}] {{ {'_x': 1}._x }} [{{ 'a'.__class__ }}]", "[] 1 []")]
    [InlineData("{{ none | select | list }} {{ none | default('d') }} {{ '' | default('d', true) }} {{ x | default('d') }} {{ [x] }} {{ x == y }}", "[] None d d [Undefined] True")]
    [InlineData("{% if true %}{% set a = 1 %}{% endif %}{{ a }}{% generation %}{% set b = 2 %}{% endgeneration %}{{ b }}{% set c %}{% set b = 3 %}x{% endset %}{{ b }}{{ c }}", "1x")]
    [InlineData("{{ '<' + ('<\"' | safe) + '>' }} {{ ('<' | safe) ~ '<' }} {{ ((' <' | safe | trim).upper() + '&').startswith('<') }} {{ ['<' | safe, '<'] | join }}", "&lt;<\"&gt; << True <<")]
    [InlineData("{% if false %}{{ 1 | from_json }}{{ x is odd_one }}{{ a.b.run() }}{% else %}{{ 'ok' if true else 1 | from_json }}{% endif %}", "ok")]
    [InlineData("{% for x in 'ab' %}{{ loop.cycle('p', 'q') }}{{ loop.depth }}{{ loop.revindex }}{{ loop.nextitem }}{{ loop.changed(1) }} {% endfor %}", "p12bTrue q11False ")]
    [InlineData("{% macro m(a, b=a) %}{{ a }}{{ b }}{{ caller(1) if caller }}{{ varargs }}{{ kwargs }}{% endmacro %}{% call(x) m(5, 6, 7, z=8) %}<{{ x }}>{% endcall %}{{ m(1) }}", "56<1>(7,){'z': 8}11(){}")]
    [InlineData("{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{% set ns = namespace(f=1) %}{% macro f(x) %}f{{ x }}{% endmacro %}{% set ns.f = f %}{{ ns.f(2) }}", "12f2")]
    [InlineData("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}{% filter upper %}x{{ 1 }}{% endfilter %}{% set s | trim | upper %} y {% endset %}{{ s }}", "3X1Y")]
    [InlineData("{% set ns = namespace() %}{% set ns.b, (a, c) = 2, (1, 3) %}{{ a }}{{ ns.b }}{{ c }}{{ dict({'x': 1}, y=2) }}{{ 'ab'.upper(*[]) }}", "123{'x': 1, 'y': 2}AB")]
    [InlineData("a\n  {% raw %} {{ x }} {%- endraw %}\nb {#+ c +#}\nd\f{{ 'e' -}} \u0085 f", "a\n {{ x }}b \nd\fef")]
    [InlineData("{{ 'a\\x41\\101\\u00e9\\q\\\n' }}|{{ \"it's\" }}|{{ 'a' 'b' }}|{{ 1 is in [1] }}|{{ -2 | abs }}|{{ not 1 in [1] }}|{{ 'a' if 1 is odd else 'b' }}", "aAA\u00E9\\q|it's|ab|True|2|False|a")]
    public void What_is_easily_rendered_otherwise_is_as_Jinja_renders_it(string template, string expected) => Assert.Equal(expected, ChatTemplate.Parse(template).Render([]).Text);

    // Where a name belongs is settled before anything is rendered.
    [Theory]
    [InlineData("{% for i in [1] %}[{{ v }}]{% endfor %}{% set v = 2 %}{{ v }}", "[]2")]
    [InlineData("{{ v }}{% for i in [1] %}[{{ v }}]{% endfor %}{% set v = 2 %}{{ v }}", "1[1]2")]
    [InlineData("{% for i in [1] %}[{{ v }}]{% endfor %}{% if true %}{% set v = 2 %}{% endif %}{{ v }}", "[1]2")]
    [InlineData("{% macro m() %}{{ v }}{% endmacro %}{{ m() }}{% set v = v ~ 2 %}{{ m() }}", "112")]
    [InlineData("{% macro m() %}{{ v }}{% endmacro %}{{ m() }}{% set v = 2 %}{{ m() }}", "2")]
    [InlineData("{% for i in [1, 2] %}{% for j in [1] %}{{ v }}{% endfor %}{% set v = i %}{{ v }}{% endfor %}{{ v }}", "11121")]
    [InlineData("{% for i in [1, 2] %}{% for j in [1] %}{{ v }}{% endfor %}{% set v = i %}{{ v }}{% endfor %}", "12")]
    [InlineData("{% for i in [1] if v %}{{ v }}{% set v = 3 %}{{ v }}{% endfor %}{% for v in [7] %}{{ v }}{% endfor %}{{ v }}", "1371")]
    public void A_name_that_a_block_sets_belongs_to_it_from_its_beginning(string template, string expected) =>
        Assert.Equal(expected, ChatTemplate.Parse(template).Render([], variables: new Dictionary<string, object?> { ["v"] = 1 }).Text);

    [Fact]
    public void Numbers_of_messages_keep_their_size_and_kind()
    {
        JsonElement arguments = JsonSerializer.Deserialize<JsonElement>("""{"a":12345678901234567890,"b":1.0,"c":1e2,"d":-0.0,"e":1e25,"f":2,"g":1e16,"h":-12345678901234567.0}""");
        string text = ChatTemplate.Parse("{{ messages[0].x | tojson }} {{ messages[0].x.a }}").Render([new Dictionary<string, object?> { ["x"] = arguments }]).Text;
        Assert.Equal("""{"a": 12345678901234567890, "b": 1.0, "c": 100.0, "d": -0.0, "e": 1e+25, "f": 2, "g": 1e+16, "h": -1.2345678901234568e+16} 12345678901234567890""", text);
    }

    [Fact]
    public void Answers_that_a_macro_marks_have_no_known_place()
    {
        ChatTemplate template = ChatTemplate.Parse("{% macro m(x) %}a:{% generation %}{{ x }}{% endgeneration %}{% endmacro %}{{ m(messages[0].content) }}");
        Dictionary<string, object?>[] messages = [new() { ["role"] = "assistant", ["content"] = "b" }];
        Assert.Equal("a:b", template.Render(messages).Text);
        Assert.Equal(ErrorIds.ChatTemplateUnsupported, Assert.Throws<LoKrException>(() => template.FindAnswers(messages)).ErrorId);
    }

    [Theory]
    [InlineData("{{ x")]
    [InlineData("{% if x %}a")]
    [InlineData("{% endfor %}")]
    [InlineData("{% for x in y %}{% endif %}")]
    [InlineData("{{ (1 }}")]
    [InlineData("{{ 'a }}")]
    [InlineData("{# a")]
    [InlineData("{% set x %}")]
    [InlineData("{{ 1 2 }}")]
    public void Damaged_templates_are_errors_with_their_line(string template)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse("\n" + template));
        Assert.Equal(ErrorIds.ChatTemplateInvalid, error.ErrorId);
        Assert.Contains("line ", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{% for a in range(90000) %}{% for b in range(90000) %}{{ a }}{% endfor %}{% endfor %}")]
    [InlineData("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")]
    [InlineData("{% set ns = namespace(t='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}")]
    [InlineData("{% set ns = namespace(t='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.t = ns.t.replace('a', 'aaaaaaaaaa') %}{% endfor %}")]
    [InlineData("{{ range(10000000000) }}")]
    [InlineData("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}")]
    [InlineData("{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}")]
    [InlineData("{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}")]
    [InlineData("{% set ns = namespace(l=[], m=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}")]
    [InlineData("{% set b = 'ab' * 9000000 %}{% for i in range(90000) %}{% if 'c' in b %}x{% endif %}{% endfor %}")]
    [InlineData("{% set b = 'ab' * 90000 %}{% for i in range(90000) %}{{ b.split('a') | length }}{% endfor %}")]
    [InlineData("{{ 10 ** 100000 }}")]
    [InlineData("{{ 'a'.ljust(10000000000) }}")]
    [InlineData("{{ 'a' * 10000000000 }}")]
    [InlineData("{{ '%9999999d' % 1 * 9 }}")]
    public void A_template_that_takes_too_much_is_an_error_within_seconds(string template)
    {
        Stopwatch watch = Stopwatch.StartNew();
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse(template).Render([]));
        Assert.Equal((ErrorIds.ChatTemplateFailed, LoKrErrorKind.LimitExceeded), (error.ErrorId, error.Kind));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 20);
    }

    [Theory]
    [InlineData(100_000)]
    [InlineData(101)]
    public void Nesting_that_is_too_deep_is_an_error(int depth)
    {
        string template = "{{ " + new string('(', depth) + "1" + new string(')', depth) + " }}";
        Assert.Equal(LoKrErrorKind.LimitExceeded, Assert.Throws<LoKrException>(() => ChatTemplate.Parse(template)).Kind);
    }

    [Theory]
    [InlineData(" ~ 1")]
    [InlineData(" and 1")]
    [InlineData(" | string")]
    [InlineData("[0]")]
    [InlineData(" if 1 else x")]
    public void A_long_chain_is_rendered_or_an_error(string link)
    {
        Assert.NotNull(ChatTemplate.Parse("{{ 'a'" + string.Concat(Enumerable.Repeat(link, 90)) + " }}").Render([]).Text);
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse("{{ 'a'" + string.Concat(Enumerable.Repeat(link, 300_000)) + " }}").Render([]));
        Assert.Equal(LoKrErrorKind.LimitExceeded, error.Kind);
    }

    [Theory]
    [InlineData("{{ missing.name }}", "missing")]
    [InlineData("{% for x in none %}{% endfor %}", "none")]
    [InlineData("{{ 'a' + 1 }}", "'+'")]
    [InlineData("{{ messages() }}", "messages")]
    [InlineData("{{ 1 // 0 }}", "divided")]
    [InlineData("{{ raise_exception('No ' ~ 'more') }}", "No more")]
    public void What_cannot_be_rendered_is_an_error_that_says_why(string template, string part)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse(template).Render([]));
        Assert.Equal(ErrorIds.ChatTemplateFailed, error.ErrorId);
        Assert.Contains(part, error.Message, StringComparison.Ordinal);
    }

    private static (ChatTemplate Template, JsonNode Cases, DateTime Now) Read(string name)
    {
        string folder = Fixtures.Require("chat", name);
        JsonNode cases = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "cases.json")))!;
        Dictionary<string, string> tokens = cases["special_tokens"]!.AsObject().ToDictionary(static token => token.Key, static token => token.Value!.GetValue<string>());
        return (ChatTemplate.Parse(File.ReadAllText(Path.Combine(folder, "template.jinja")), tokens), cases, cases["now"]!.GetValue<DateTime>());
    }

    private static List<Dictionary<string, object?>> Messages(JsonNode row) => [.. row["messages"]!.AsArray().Select(static message => Values(message!))];

    private static Dictionary<string, object?>? Variables(JsonNode row) => row["variables"] is JsonNode variables ? Values(variables) : null;

    private static Dictionary<string, object?> Values(JsonNode node) =>
        node.AsObject().ToDictionary(static member => member.Key, static member => (object?)JsonSerializer.SerializeToElement(member.Value));
}
