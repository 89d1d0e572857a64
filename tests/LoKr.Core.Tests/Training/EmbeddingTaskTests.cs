using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Training;

/// <summary>The batches of sentence encoders.</summary>
public sealed class EmbeddingTaskTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void No_text_is_twice_in_a_batch_where_that_is_asked_for()
    {
        using LoKrModel model = ModelLoader.Load(LoKr.Testing.TinyModel.WriteBert(_folder["bert"]));
        DataRow[] rows = [.. Enumerable.Range(0, 20).Select(row => Row(("anchor", TinyData.Words[row]), ("positive", row < 4 ? "the same" : TinyData.Words[19 - row] + " login")))];
        using EmbeddingTask plain = new(model, rows, new() { BatchSize = 5 });
        Assert.Contains("up to 4 rows", Assert.Single(plain.Warnings), StringComparison.Ordinal);
        using EmbeddingTask distinct = new(model, rows, new() { BatchSize = 5, NoDuplicates = true });
        Assert.Empty(distinct.Warnings);
        for (int epoch = 0; epoch < 20; epoch++)
        {
            EmbeddingBatch[] batches = [.. distinct.Batches(new BatchOrder(5, Shuffle: true, Seed: 1, Epoch: epoch)).Cast<EmbeddingBatch>()];
            Assert.Equal(distinct.CountBatches(5), batches.Length);
            Assert.Equal(Enumerable.Range(0, 20), batches.SelectMany(static batch => batch.Indices).Order());
            Assert.All(batches, static batch => Assert.True(batch.Rows.SelectMany(static row => row.Texts).GroupBy(static text => text).All(static text => text.Count() == 1)));
        }

        // More rows with one text than batches: the rest waits for another epoch, and the user is told.
        DataRow[] alike = [.. Enumerable.Range(0, 10).Select(row => Row(("anchor", TinyData.Words[row]), ("positive", "the same")))];
        using EmbeddingTask few = new(model, alike, new() { BatchSize = 5, NoDuplicates = true });
        Assert.Contains("8 or more rows are left out", Assert.Single(few.Warnings), StringComparison.Ordinal);
        Assert.Equal([1, 1], few.Batches(new BatchOrder(5, Shuffle: true)).Select(static batch => batch.RowCount));
    }

    [Fact]
    public void Queries_and_documents_have_their_prompts_in_training_too()
    {
        string bert = LoKr.Testing.TinyModel.WriteBert(_folder["bert"]);
        using LoKrModel plain = ModelLoader.Load(bert);
        ModelExporter.Export(plain, _folder["out"]);
        File.WriteAllText(_folder["out", "config_sentence_transformers.json"], """{"prompts": {"query": "vpn ", "document": "price card "}}""");
        using LoKrModel model = ModelLoader.Load(_folder["out"]);
        using EmbeddingTask search = new(model, [Row(("query", "wifi"), ("positive", "wifi"))]);
        EmbeddingBatch batch = (EmbeddingBatch)search.Batches(new BatchOrder(1)).Single();
        Assert.Equal([4, 5], batch.Columns.Select(static column => column.Tokens.Length));
        using EmbeddingTask texts = new(model, [Row(("anchor", "wifi"), ("positive", "login"))]);
        Assert.Equal([3, 3], ((EmbeddingBatch)texts.Batches(new BatchOrder(1)).Single()).Columns.Select(static column => column.Tokens.Length));
    }

    [Fact]
    public void Pairs_are_measured_before_training_as_texts_are()
    {
        using LoKrModel model = ModelLoader.Load(LoKr.Testing.TinyModel.WriteBert(_folder["bert"]));
        DataRow[] rows =
        [
            Row(("query", "vpn"), ("positive", "wifi login")), Row(("query", "vpn"), ("positive", "wifi login")), Row(("query", "vpn"), ("positive", "price")),
            Row(("query", ""), ("positive", "x")), Row(("document", "the price is")), Row(("sentence1", "vpn"), ("sentence2", "wifi"), ("score", 1)),
        ];
        LoKrDataSummary summary = DataMeasurement.Measure(rows, new() { Model = model, Validation = [rows[2]] }, null, TestContext.Current.CancellationToken);
        Assert.Equal((6, 1, 1, 1), (summary.RowCount, summary.DuplicateCount, summary.EmptyCount, summary.SharedCount!.Value));
        Assert.Equal((5, 32), (summary.LongestLength, summary.MaxLength!.Value));
        Assert.Contains(summary.Findings, static finding => finding.Kind is DataFindingKind.UnknownTokens);
    }

    private static DataRow Row(params (string Name, object Value)[] fields) => new(fields.ToDictionary(static field => field.Name, static field => (object?)field.Value), "a row");
}
