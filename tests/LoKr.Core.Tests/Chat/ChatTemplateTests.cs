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
    [InlineData("\n\n{{ x is divisibleby 3 }}", "'divisibleby'", 3)]
    [InlineData("{{ x.__class__.mro() }}", "'mro'", 1)]
    [InlineData("{% call m() %}{% endcall %}", "'call'", 1)]
    [InlineData("{{ 2 ** 3 }}", "'**'", 1)]
    public void What_is_not_interpreted_is_refused_with_line_and_feature(string template, string feature, int line)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ChatTemplate.Parse(template));
        Assert.Equal(ErrorIds.ChatTemplateUnsupported, error.ErrorId);
        Assert.Contains(feature, error.Message, StringComparison.Ordinal);
        Assert.Contains($"line {line}", error.Message, StringComparison.Ordinal);
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
