using System.Text;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Data;

public sealed class DataReaderTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Json_lines_keep_types_and_line_numbers()
    {
        IReadOnlyList<DataRow> rows = Read("t.jsonl", "{\"text\":\"a\\nb\",\"label\":3,\"x\":1.5,\"y\":true,\"z\":null}\n\n  \n{\"text\":\"ü\"}\r\n");
        Assert.Equal(2, rows.Count);
        Assert.Equal("t.jsonl:1", rows[0].Origin);
        Assert.Equal("t.jsonl:4", rows[1].Origin);
        Assert.Equal(["a\nb", 3L, 1.5, true, null], rows[0].Fields.Values);
        Assert.Equal("ü", rows[1].Fields["text"]);
    }

    [Theory]
    [InlineData("{\"text\":\"a\"}\n{\"text\": oops}\n", "t.jsonl:2")]
    [InlineData("{\"text\":\"a\"}\n{\"text\":\"b\"\n", "t.jsonl:2")]
    [InlineData("{\"text\":\"a\"}\n\n[1,2]\n", "t.jsonl:3")]
    [InlineData("{\"text\":\"a\"} {\"text\":\"b\"}\n", "t.jsonl:1")]
    [InlineData("{\"text\":\"a\",\"text\":\"b\"}\n", "t.jsonl:1")]
    [InlineData("\"just text\"\n", "t.jsonl:1")]
    public void A_line_that_is_not_an_object_is_named(string content, string origin)
    {
        LoKrException e = Fails(ErrorIds.DataLineInvalid, "t.jsonl", content);
        Assert.StartsWith(origin + " ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_json_array_is_read()
    {
        IReadOnlyList<DataRow> rows = Read("t.json", "[\n {\"text\":\"a\"},\n {\"text\":\"b\"}\n]");
        Assert.Equal(["t.json[0]", "t.json[1]"], rows.Select(row => row.Origin));
        Assert.Equal("b", rows[1].Fields["text"]);
    }

    [Theory]
    [InlineData("{\"text\":\"a\"}")]
    [InlineData("[{\"text\":\"a\"}")]
    [InlineData("[1]")]
    public void A_json_file_that_is_not_an_array_of_objects_is_refused(string content) => Fails(ErrorIds.DataLineInvalid, "t.json", content);

    [Fact]
    public void Csv_follows_the_standard()
    {
        string content = "text, label\n\"two\n\n  \nlines, \"\"quoted\"\"\",x\n\n5\" disk,\n\"\", y \n";
        IReadOnlyList<DataRow> rows = Read("t.csv", content);
        Assert.Equal(["two\n\n  \nlines, \"quoted\"", "5\" disk", ""], rows.Select(row => row.Fields["text"]));
        Assert.Equal(["x", "", " y "], rows.Select(row => row.Fields["label"]));
        Assert.Equal(["t.csv:2", "t.csv:7", "t.csv:8"], rows.Select(row => row.Origin));
    }

    [Fact]
    public void Tab_separated_values_are_read() =>
        Assert.Equal("a,b", Assert.Single(Read("t.tsv", "text\tlabel\na,b\tx\n")).Fields["text"]);

    [Theory]
    [InlineData("text,label\na,x\nb\n", "t.csv:3")]
    [InlineData("text,label\na,x,1\n", "t.csv:2")]
    [InlineData("text,label\n\"open,x\nb,y\n", "t.csv:2")]
    [InlineData("text,label\na,x\n\"b\"c,x\n", "t.csv:3")]
    public void A_damaged_record_is_named(string content, string origin)
    {
        LoKrException e = Fails(ErrorIds.DataLineInvalid, "t.csv", content);
        Assert.StartsWith(origin + " ", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("text,text\na,b\n", "'text' twice")]
    [InlineData("text,\na,b\n", "without a name")]
    public void A_header_needs_a_name_for_every_column(string content, string problem) =>
        Assert.Contains(problem, Fails(ErrorIds.DataHeaderInvalid, "t.csv", content).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("t.jsonl", "")]
    [InlineData("t.jsonl", "\n \n")]
    [InlineData("t.json", "[]")]
    [InlineData("t.json", "")]
    [InlineData("t.csv", "")]
    [InlineData("t.csv", "text,label\n")]
    public void A_file_without_rows_is_refused(string name, string content) => Fails(ErrorIds.DataEmpty, name, content);

    [Theory]
    [InlineData("t.jsonl", "{\"text\":\"a\"}\n")]
    [InlineData("t.csv", "text\na\n")]
    public void Byte_order_marks_are_no_part_of_the_data(string name, string content)
    {
        foreach (Encoding encoding in (Encoding[])[new UTF8Encoding(true), Encoding.Unicode])
        {
            string path = _folder[name];
            File.WriteAllText(path, content, encoding);
            Assert.Equal("a", Assert.Single(DataReader.ReadFile(path)).Fields["text"]);
        }
    }

    [Fact]
    public void Text_that_is_not_utf8_is_refused()
    {
        string path = _folder["t.csv"];
        File.WriteAllBytes(path, [.. "text\n"u8, 0xFC, 0x62, (byte)'\n']);
        Assert.Equal(ErrorIds.DataEncodingInvalid, Assert.Throws<LoKrException>(() => DataReader.ReadFile(path)).ErrorId);
    }

    [Fact]
    public void A_missing_file_and_an_unknown_extension_are_told_apart()
    {
        Assert.Equal(ErrorIds.PathNotFound, Assert.Throws<LoKrException>(() => DataReader.ReadFile(_folder["no.jsonl"])).ErrorId);
        Fails(ErrorIds.DataFormatUnknown, "t.xlsx", "x");
    }

    private IReadOnlyList<DataRow> Read(string name, string content)
    {
        string path = _folder[name];
        File.WriteAllText(path, content);
        return DataReader.ReadFile(path);
    }

    private LoKrException Fails(string errorId, string name, string content)
    {
        LoKrException e = Assert.Throws<LoKrException>(() => Read(name, content));
        Assert.Equal(errorId, e.ErrorId);
        return e;
    }

    [Fact]
    public void Reading_reports_its_rows_and_stops_between_them()
    {
        File.WriteAllLines(_folder["rows.jsonl"], Enumerable.Range(0, 600).Select(i => $"{{\"text\": \"{i}\"}}"));
        List<int> counts = [];
        Assert.Equal(600, DataReader.ReadFile(_folder["rows.jsonl"], counts.Add, TestContext.Current.CancellationToken).Count);
        Assert.Equal([256, 512], counts);

        using CancellationTokenSource stop = new();
        Assert.Throws<OperationCanceledException>(() => DataReader.ReadFile(_folder["rows.jsonl"], _ => stop.Cancel(), stop.Token));
    }
}
