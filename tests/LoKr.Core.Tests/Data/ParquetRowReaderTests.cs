using System.Text.Json;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Testing;
using Parquet;
using Parquet.Serialization;
using Xunit;

namespace LoKr.Core.Tests.Data;

/// <summary>Parquet files as pandas and Hugging Face's datasets write them: texts, numbers, lists and structures.</summary>
public sealed class ParquetRowReaderTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Values_have_the_types_of_JSON()
    {
        DateTime time = new(2026, 11, 29, 3, 0, 0, DateTimeKind.Utc);
        Row[] written =
        [
            new() { text = "ä", label = 3, score = 1.5, ratio = 0.5f, done = true, price = 1.25m, at = time, words = ["a", "b"], tags = [1, 2], messages = [new() { role = "user", content = "c" }], about = new() { role = "d", content = "e" } },
            new() { text = null, label = null },
        ];
        await ParquetSerializer.SerializeAsync(written, _folder["t.parquet"], cancellationToken: TestContext.Current.CancellationToken);
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(_folder["t.parquet"]);
        Assert.Equal(["t.parquet[0]", "t.parquet[1]"], rows.Select(static row => row.Origin));
        Assert.Equal(["ä", 3L, 1.5, 0.5, true, 1.25m], new[] { "text", "label", "score", "ratio", "done", "price" }.Select(name => rows[0].Fields[name]));
        Assert.StartsWith("2026-11-29T03:00:00", Assert.IsType<string>(rows[0].Fields["at"]), StringComparison.Ordinal);
        Assert.Equal("""["a","b"]""", Json(rows[0], "words"));
        Assert.Equal("[1,2]", Json(rows[0], "tags"));
        Assert.Equal("""[{"role":"user","content":"c"}]""", Json(rows[0], "messages"));
        Assert.Equal("""{"role":"d","content":"e"}""", Json(rows[0], "about"));
        Assert.True(RowFields.IsNull(rows[1], "text"));
        Assert.True(RowFields.IsNull(rows[1], "label"));

        static string Json(DataRow row, string name) => Assert.IsType<JsonElement>(row.Fields[name]).GetRawText();
    }

    [Fact]
    public async Task Row_groups_are_read_one_after_the_other()
    {
        Row[] written = [.. Enumerable.Range(0, 250).Select(static i => new Row { text = $"row {i}", label = i })];
        await ParquetSerializer.SerializeAsync(written, _folder["t.parquet"], new ParquetOptions { RowGroupSize = 100 }, cancellationToken: TestContext.Current.CancellationToken);
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(_folder["t.parquet"]);
        Assert.Equal(written.Select(static row => (object?)row.text), rows.Select(static row => row.Fields["text"]));
        Assert.Equal("t.parquet[249]", rows[^1].Origin);
    }

    [Fact]
    public async Task A_damaged_file_is_an_error_and_never_hangs()
    {
        await ParquetSerializer.SerializeAsync([new Row { text = "a", words = ["b"] }], _folder["t.parquet"], cancellationToken: TestContext.Current.CancellationToken);
        byte[] valid = await File.ReadAllBytesAsync(_folder["t.parquet"], TestContext.Current.CancellationToken);

        // The last byte of the footer ends it; without it the library reads on behind the end, for ever.
        byte[] endless = [.. valid];
        endless[^9] = 0xb5;
        byte[] longer = [.. valid];
        longer[^6] = 0xff;
        foreach (byte[] damaged in (byte[][])[endless, longer, valid[..^1], valid[4..], "PAR1"u8.ToArray(), []])
        {
            await File.WriteAllBytesAsync(_folder["t.parquet"], damaged, TestContext.Current.CancellationToken);
            ErrorAssert.Throws(ErrorIds.FileNotReadable, () => DataReader.ReadFile(_folder["t.parquet"]), "t.parquet", "Parquet");
        }
    }

#pragma warning disable IDE1006 // The names are those of the columns.
    private sealed class Row
    {
        public string? text { get; set; }

        public long? label { get; set; }

        public double score { get; set; }

        public float ratio { get; set; }

        public bool done { get; set; }

        public decimal price { get; set; }

        public DateTime at { get; set; }

        public List<string>? words { get; set; }

        public List<int>? tags { get; set; }

        public List<Message>? messages { get; set; }

        public Message? about { get; set; }
    }

    private sealed class Message
    {
        public string? role { get; set; }

        public string? content { get; set; }
    }
#pragma warning restore IDE1006
}
