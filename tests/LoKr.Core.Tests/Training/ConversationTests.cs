using System.Text.Json;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>Rows that are conversations: one token a character, positions as in the rendered text.</summary>
public sealed class ConversationTests
{
    private const string Template = "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ';' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

    private static readonly DateTime s_day = new(2026, 3, 5);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("""{"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi\nyou"},{"role":"assistant","content":"yo"}]}""")]
    [InlineData("""{"messages":"[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"hi\\nyou\"},{\"role\":\"assistant\",\"content\":\"yo\"}]"}""")]
    [InlineData("""{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"hi\nyou"},{"from":"gpt","value":"yo"}]}""")]
    [InlineData("""{"conversations":[{"from":"human","value":"hi\nyou"},{"from":"gpt","value":"yo"}],"system":"s"}""")]
    [InlineData("""{"instruction":"hi","input":"you","output":"yo","system":"s"}""")]
    [InlineData("""{"instruction":"hi\nyou","input":"","output":"yo","system":"s"}""")]
    public void A_conversation_of_any_shape_has_loss_on_what_the_assistant_says(string json)
    {
        using LoKrModel model = Model();
        using CausalLanguageTask task = new(model, [Row(json)]);
        LanguageBatch batch = Only(task);
        Assert.Equal("s:s;u:hi\nyou;a:yo;".Select(static c => (long)c), batch.Tokens.Ids.ToArray());
        Assert.Equal("yo;".Select(static c => (long)c), batch.Targets);
        Assert.Empty(task.Warnings);
    }

    [Theory]
    [InlineData("""{"messages":[{"role":"user","content":"p","name":null},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f"}}]},{"role":"tool","content":"t","tool_call_id":"1"},{"role":"assistant","content":"x"}]}""")]
    [InlineData("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},{"role":"tool","content":"t"},{"role":"assistant","content":"x","tool_calls":null}]}""")]
    public void A_message_that_calls_a_tool_needs_no_content(string json)
    {
        using LoKrModel model = Model("{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ (m.tool_calls[0].function.name if m.tool_calls) ~ ';' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}");
        using CausalLanguageTask task = new(model, [Row(json)]);
        Assert.Equal("u:p;a:f;t:t;a:x;".Select(static c => (long)c), Only(task).Tokens.Ids.ToArray());
        Assert.Equal("f;x;".Select(static c => (long)c), Only(task).Targets);
    }

    [Fact]
    public void Every_answer_is_trained_and_on_demand_every_token()
    {
        const string Json = """{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"x"},{"role":"user","content":"q"},{"role":"assistant","content":"y"}]}""";
        using LoKrModel model = Model();
        using CausalLanguageTask task = new(model, [Row(Json)]);
        Assert.Equal("x;y;".Select(static c => (long)c), Only(task).Targets);
        using CausalLanguageTask whole = new(model, [Row(Json)], reading: new() { LossOn = LossOn.All });
        Assert.Equal("u:p;a:x;u:q;a:y;"[1..].Select(static c => (long)c), Only(whole).Targets);
        Assert.NotEqual(task.DataHash, whole.DataHash);
        using CausalLanguageTask pair = new(model, [Rows.Pair("pq", "x")], reading: new() { LossOn = LossOn.All });
        Assert.Equal(['p', 'q', 'x', 2L], Only(pair).Targets);
    }

    [Fact]
    public void Loss_is_on_what_the_template_marks_where_it_does()
    {
        using LoKrModel model = Model("{% for m in messages %}{{ m.role[0] }}:{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}");
        using CausalLanguageTask task = new(model, [Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"x"}]}""")]);
        Assert.Equal(['p', 'x'], Only(task).Targets);
    }

    [Fact]
    public void Answers_that_the_longest_sequence_cuts_are_counted_in_training_and_in_a_measurement_of_the_data()
    {
        // u:p;a:xxxx;u:q;a:y; has its answers at 6 to 11 and 17 to 19.
        DataRow[] rows =
        [
            Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"xxxx"},{"role":"user","content":"q"},{"role":"assistant","content":"y"}]}""", 1),
            Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"y"}]}""", 2),
            Row("""{"messages":[{"role":"user","content":"pppppppp"},{"role":"assistant","content":"y"}]}""", 3),
        ];
        using LoKrModel model = Model();
        using CausalLanguageTask task = new(model, rows, maxLength: 9);
        Assert.Equal(2, task.RowCount);
        Assert.Contains("3 of 4 answers are not whole within 9 tokens: 1 is cut, 2 left out.", task.Warnings);
        Assert.Contains("1 of 3 rows have no token to learn from within 9 tokens and are left out: t.jsonl:3.", task.Warnings);
        Assert.Contains("1 of 3 rows are cut to 9 tokens; the longest has 19.", task.Warnings);

        LoKrDataSummary summary = DataMeasurement.Measure(rows, new() { Model = model, MaxLength = 9, Thresholds = new Dictionary<DataFindingKind, double> { [DataFindingKind.CutAnswers] = 0.5 } }, null, Token);
        Assert.Equal((3, 8, 4, 3, 2), (summary.ConversationCount, summary.TurnCount, summary.AnswerCount, summary.CutAnswerCount, summary.CutCount));
        LoKrDataFinding finding = Assert.Single(summary.Findings, static finding => finding.Kind is DataFindingKind.CutAnswers);
        Assert.Equal((0.75, true), (finding.Value, finding.IsExceeded));
        LoKrDataSummary without = DataMeasurement.Measure(rows, null, null, Token);
        Assert.Equal((9, 2, null), (without.LongestLength, without.ShortestLength, without.CutAnswerCount));
    }

    [Fact]
    public void Answers_whose_place_cannot_be_told_are_counted_with_the_reason()
    {
        using LoKrModel model = Model("{% for m in messages %}{{ m.role[0] ~ ':' ~ (m.content if loop.last else '-') ~ ';' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}");
        using CausalLanguageTask task = new(
            model, [Row("""{"messages":[{"role":"user","content":"pq"},{"role":"assistant","content":"xx"},{"role":"user","content":"q"},{"role":"assistant","content":"y"}]}"""), Rows.Text("z")]);
        string warning = Assert.Single(task.Warnings, static warning => warning.Contains("cannot be told", StringComparison.Ordinal));
        Assert.StartsWith("2 of 2 answers are not trained", warning, StringComparison.Ordinal);
        Assert.Equal(1, task.RowCount);
        LoKrDataSummary summary = DataMeasurement.Measure(
            [Row("""{"messages":[{"role":"user","content":"pq"},{"role":"assistant","content":"xx"},{"role":"user","content":"q"},{"role":"assistant","content":"y"}]}""")], new() { Model = model }, null, Token);
        Assert.Equal(2, summary.UnplacedAnswerCount);
        Assert.Equal(ErrorIds.DataAnswersUnplaced, Assert.Single(summary.Findings, static finding => finding.Kind is DataFindingKind.UnplacedAnswers).ErrorId);
    }

    [Fact]
    public void Answers_that_begin_within_a_token_of_the_prompt_are_trained_and_counted()
    {
        // upp;ab;uq;ac; where ab is one token: the first answer begins inside it, the second does not.
        using LoKrModel model = TinyLanguageModel.Create(new TinyTokenizer
        {
            JoinsAb = true,
            Template = "{% for m in messages %}{{ m.role[0] ~ m.content ~ ';' }}{% endfor %}{% if add_generation_prompt %}a{% endif %}",
        });
        DataRow[] rows = [Row("""{"messages":[{"role":"user","content":"pp"},{"role":"assistant","content":"b"},{"role":"user","content":"q"},{"role":"assistant","content":"c"}]}""")];
        using CausalLanguageTask task = new(model, rows);
        Assert.Equal([127, ';', 'c', ';'], Only(task).Targets);
        Assert.StartsWith("1 of 2 answers begin within a token of the text in front of them", Assert.Single(task.Warnings), StringComparison.Ordinal);

        LoKrDataSummary summary = DataMeasurement.Measure(
            rows, new() { Model = model, Thresholds = new Dictionary<DataFindingKind, double> { [DataFindingKind.JoinedAnswers] = 0 } }, null, Token);
        Assert.Equal((1, 0), (summary.JoinedAnswerCount, summary.UnplacedAnswerCount));
        LoKrDataFinding finding = Assert.Single(summary.Findings, static finding => finding.Kind is DataFindingKind.JoinedAnswers);
        Assert.Equal((0.5, true, ErrorIds.DataAnswersJoined), (finding.Value, finding.IsExceeded, finding.ErrorId));
        Assert.Null(DataMeasurement.Measure(rows, null, null, Token).JoinedAnswerCount);
    }

    [Fact]
    public void A_conversation_that_the_template_refuses_is_a_row_that_does_not_fit()
    {
        using LoKrModel model = Model("{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}" + Template);
        DataRow[] rows = [Row("""{"messages":[{"role":"assistant","content":"x"}]}""", 4), Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"x"}]}""", 5)];
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new CausalLanguageTask(model, rows).Dispose(), "t.jsonl:4", "roles must alternate");
        using CausalLanguageTask task = new(model, rows, reading: new() { SkipInvalid = true });
        Assert.Equal(1, task.RowCount);
        Assert.Contains(task.Warnings, static warning => warning.StartsWith("1 row does not fit and is skipped", StringComparison.Ordinal) && warning.Contains("t.jsonl:4", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("""{"messages":[]}""", "list of messages")]
    [InlineData("""{"messages":"hello"}""", "list of messages")]
    [InlineData("""{"messages":{"role":"user","content":"p"}}""", "list of messages")]
    [InlineData("""{"messages":["p"]}""", "Message 1 in the messages of t.jsonl:1 is not an object")]
    [InlineData("""{"messages":[{"role":"user","content":"p"},{"content":"p"}]}""", "Message 2 in the messages of t.jsonl:1 has no role")]
    [InlineData("""{"messages":[{"role":"user"}]}""", "has no content")]
    [InlineData("""{"messages":[{"role":"assistant","content":null,"tool_calls":null}]}""", "has no content")]
    [InlineData("""{"messages":[{"role":"user","content":5}]}""", "has no content")]
    [InlineData("""{"conversations":[{"from":"narrator","value":"p"}]}""", "'narrator'")]
    [InlineData("""{"instruction":"p","output":""}""", "output of t.jsonl:1 is empty")]
    public void A_conversation_that_is_none_is_an_error_with_its_row(string json, string expected)
    {
        using LoKrModel model = Model();
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new CausalLanguageTask(model, [Row(json)]).Dispose(), expected);
    }

    [Fact]
    public void What_a_row_has_for_the_template_goes_to_it_and_columns_of_texts_come_before_those_of_Alpaca()
    {
        using LoKrModel model = Model("{{ tools | length }}{{ documents[0].t }}{{ mood }}" + Template);
        using CausalLanguageTask task = new(
            model, [Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"x"}],"tools":[1,2],"documents":[{"t":"d"}],"chat_template_kwargs":{"mood":"m"}}""")]);
        Assert.Equal("2dmu:p;a:x;".Select(static c => (long)c), Only(task).Tokens.Ids.ToArray());
        using CausalLanguageTask text = new(model, [Row("""{"instruction":"i","output":"o","text":"xy"}""")]);
        Assert.Equal([1, 'x', 'y', 2L], Only(text).Tokens.Ids.ToArray());
    }

    [Fact]
    public void A_model_without_a_template_says_so()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        ErrorAssert.Throws(ErrorIds.ChatTemplateMissing, () => new CausalLanguageTask(model, [Row("""{"messages":[{"role":"user","content":"p"}]}""")], reading: new() { SkipInvalid = true }).Dispose(), "no chat template");
    }

    [Fact]
    public void The_day_that_a_template_writes_is_that_of_the_reading_and_part_of_the_data()
    {
        const string Json = """{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"x"}]}""";
        using LoKrModel model = Model("{{ strftime_now('%d%m') }}" + Template);
        using CausalLanguageTask task = new(model, [Row(Json)], reading: new() { Day = s_day });
        Assert.Equal("0503u:p;a:x;".Select(static c => (long)c), Only(task).Tokens.Ids.ToArray());
        Assert.Equal(s_day, task.Day);
        using CausalLanguageTask same = new(model, [Row(Json)], reading: new() { Day = s_day });
        using CausalLanguageTask other = new(model, [Row(Json)], reading: new() { Day = s_day.AddDays(1) });
        Assert.Equal(task.DataHash, same.DataHash);
        Assert.NotEqual(task.DataHash, other.DataHash);
        using CausalLanguageTask text = new(model, [Rows.Text("x")], reading: new() { Day = s_day });
        Assert.Null(text.Day);
        using LoKrModel timeless = Model();
        using CausalLanguageTask without = new(timeless, [Row(Json)], reading: new() { Day = s_day });
        Assert.Null(without.Day);
    }

    [Fact]
    public void Texts_and_pairs_keep_the_hash_that_runs_on_disk_have()
    {
        using LoKrModel model = Model();
        using CausalLanguageTask task = new(model, [Rows.Text("xy"), Rows.Pair("pq", "xyz")], maxLength: 5);
        Assert.Equal(new RowHash().Add([[1, 'x', 'y', 2], [1, 'p', 'q', 'x', 'y']]).Add([0, 3]).Finish(), task.DataHash);
    }

    [Fact]
    public void An_answer_is_exact_where_each_of_its_tokens_is_the_most_likely_one()
    {
        using LoKrModel model = Model("{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %};{% endfor %}");
        AlwaysPredict(model, 'x');
        DataRow[] chats =
        [
            Row("""{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"xxx"}]}"""),
            Row("""{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"xyx"}]}"""),
            Row("""{"messages":[{"role":"user","content":"r"},{"role":"assistant","content":"x"},{"role":"user","content":"s"},{"role":"assistant","content":"xx"}]}"""),
        ];
        using CausalLanguageTask task = new(model, [.. chats, Rows.Text("plain")]);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, Token);
        Assert.Equal((2 / 3.0, 2 / 3.0), (evaluation.ExactMatch, evaluation.ValueOf(EvaluationMetric.ExactMatch)));
        IReadOnlyList<RowScore> scores = RowScores.Compute(model, task, 2, cancellation: Token);
        Assert.Equal((3, 2), (scores.Count(static score => score.IsExact is not null), scores.Count(static score => score.IsRight == true)));
        Assert.Equal(2 / 3.0, new RowMetric(EvaluationMetric.ExactMatch, scores).Value);

        // The end of a completion has to be the model's too.
        using CausalLanguageTask pair = new(model, [Rows.Pair("p", "x")]);
        Assert.Equal(0, Evaluator.Evaluate(model, pair, 2, Token).ExactMatch);
        using CausalLanguageTask text = new(model, [Rows.Text("xx")]);
        Assert.Null(Evaluator.Evaluate(model, text, 2, Token).ExactMatch);
        ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => _ = new RowMetric(EvaluationMetric.ExactMatch, RowScores.Compute(model, text, 2, cancellation: Token)));
    }

    private static void AlwaysPredict(LoKrModel model, char token)
    {
        using var noGrad = no_grad();
        Dictionary<string, TorchSharp.Modules.Parameter> head = model.Module.named_parameters().Where(static item => item.name.StartsWith("lm_head.", StringComparison.Ordinal))
            .ToDictionary(static item => item.name, static item => item.parameter);
        head["lm_head.weight"].zero_();
        head["lm_head.bias"].zero_();
        head["lm_head.bias"][token] = 10f;
    }

    private static LoKrModel Model(string template = Template) => TinyLanguageModel.Create(new TinyTokenizer { Template = template });

    private static DataRow Row(string json, int line = 1) => new(
        JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!.ToDictionary(
            static pair => pair.Key, static pair => pair.Value.ValueKind == JsonValueKind.String ? pair.Value.GetString() : (object?)pair.Value, StringComparer.Ordinal), $"t.jsonl:{line}");

    private static LanguageBatch Only(ITrainingTask task) => Assert.IsType<LanguageBatch>(Assert.Single(task.Batches(new BatchOrder(100, Bucket: false))));
}
