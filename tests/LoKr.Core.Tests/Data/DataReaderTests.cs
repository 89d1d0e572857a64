using System.IO.Compression;
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
    public void A_line_without_end_is_an_error_that_names_it()
    {
        string path = _folder["t.jsonl"];
        using (FileStream file = File.Create(path))
        {
            file.Write("{\"text\":\"a\"}\n{\"text\":\""u8);
            file.SetLength(GuardedStream.LongestLine + (1 << 20));
        }

        LoKrException e = Assert.Throws<LoKrException>(() => DataReader.ReadFile(path));
        Assert.Equal(ErrorIds.DataLineInvalid, e.ErrorId);
        Assert.StartsWith("t.jsonl:2 is longer than", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(".jsonl.gz", "\n")]
    [InlineData(".csv.gz", "\n")]
    [InlineData(".json.gz", " ")]
    public void A_small_file_that_expands_without_end_is_an_error(string extension, string content)
    {
        string path = _folder["t" + extension];
        byte[] block = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(content, 1 << 20)));
        using (GZipStream compressed = new(File.Create(path), CompressionLevel.Optimal))
        {
            for (int i = 0; i < 100; i++)
            {
                compressed.Write(block);
            }
        }

        LoKrException e = Assert.Throws<LoKrException>(() => DataReader.ReadFile(path));
        Assert.Equal(ErrorIds.DataLineInvalid, e.ErrorId);
        Assert.Contains("expands to more than", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_document_larger_than_memory_is_an_error()
    {
        using GuardedStream document = new(new RepeatedText(" ", long.MaxValue), "t.json", DataUnit.Document);
        byte[] buffer = new byte[16 << 20];
        LoKrException e = Assert.Throws<LoKrException>(() =>
        {
            while (document.Read(buffer) > 0)
            {
            }
        });
        Assert.Equal(ErrorIds.DataLineInvalid, e.ErrorId);
        Assert.Equal(GuardedStream.LargestDocument + buffer.Length, document.Position);
    }

    [Fact]
    public void Long_files_of_short_lines_are_read()
    {
        using GuardedStream lines = new(new RepeatedText("{\"text\":\"a text\"}\n", GuardedStream.LongestLine + (8 << 20)), "t.jsonl", DataUnit.Line);
        byte[] buffer = new byte[1 << 20];
        while (lines.Read(buffer) > 0)
        {
        }

        Assert.Equal(GuardedStream.LongestLine + (8 << 20), lines.Position);
    }

    /// <summary>One text over and over.</summary>
    private sealed class RepeatedText(string text, long length) : MemoryStream
    {
        private readonly byte[] _bytes = Encoding.UTF8.GetBytes(text);
        private long _position;

        public override int Read(Span<byte> buffer)
        {
            int count = (int)Math.Min(buffer.Length, length - _position);
            for (int i = 0; i < count; i++)
            {
                buffer[i] = _bytes[(_position + i) % _bytes.Length];
            }

            _position += count;
            return count;
        }
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

    [Theory]
    [InlineData("t.conll", "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n", "t.conll:3", "t.conll:7")]
    [InlineData("t.bio", "# id 12 domain=train\nEU\tB-ORG\r\nrejects\tO\r\n\r\nPeter\tB-PER", "t.bio:2", "t.bio:5")]
    [InlineData("t.iob", "EU   B-ORG\nrejects   O\n \nPeter B-PER\n\n", "t.iob:1", "t.iob:4")]
    public void Words_with_tags_have_a_row_for_each_sentence(string name, string content, string first, string second)
    {
        IReadOnlyList<DataRow> rows = Read(name, content);
        Assert.Equal([first, second], rows.Select(static row => row.Origin));
        Assert.Equal([["EU", "rejects"], ["Peter"]], rows.Select(static row => Assert.IsType<string[]>(row.Fields["tokens"])));
        Assert.Equal([["B-ORG", "O"], ["B-PER"]], rows.Select(static row => Assert.IsType<string[]>(row.Fields["ner_tags"])));
        Assert.Equal(["B-ORG", "O"], RowFields.LabelNames(rows[0]));
    }

    [Fact]
    public void Words_without_tags_have_none_and_a_number_sign_is_a_word()
    {
        DataRow words = Assert.Single(Read("t.conll", "disk\nfull\n"));
        Assert.Equal(["tokens"], words.Fields.Keys);
        Assert.Equal(["#", "42"], Assert.IsType<string[]>(Assert.Single(Read("t.conll", "# O\n42 B-TICKET\n")).Fields["tokens"]));
    }

    [Theory]
    [InlineData("EU B-ORG\nrejects\n", "t.conll:2 has no tag.")]
    [InlineData("EU\nrejects O\n", "t.conll:2 has a tag, which the first word of its sentence lacks.")]
    [InlineData("EU\tB-ORG\n\tO\n", "t.conll:2 has an empty column.")]
    public void A_line_that_does_not_fit_its_sentence_is_named(string content, string problem)
    {
        LoKrException e = Fails(ErrorIds.DataLineInvalid, "t.conll", content);
        Assert.StartsWith(problem, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_sentence_without_end_is_an_error_that_names_its_first_line()
    {
        string path = _folder["t.conll"];
        string word = new('a', 1 << 20);
        File.WriteAllLines(path, Enumerable.Repeat($"{word} O", 40).Append("").Concat(Enumerable.Repeat($"{word} O", 64)));
        LoKrException e = Assert.Throws<LoKrException>(() => DataReader.ReadFile(path, new DataReading { SkipInvalid = true }, null, TestContext.Current.CancellationToken));
        Assert.Equal(ErrorIds.DataLineInvalid, e.ErrorId);
        Assert.StartsWith("t.conll:42 begins a sentence of more than 64 Mi", e.Message, StringComparison.Ordinal);
    }

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
    [InlineData("text,label,,\na,x,,\nb,y,,\n")]
    [InlineData("text;label;;\na;x\nb;y;;\n")]
    public void Columns_at_the_end_without_a_name_and_without_values_are_none(string content)
    {
        IReadOnlyList<DataRow> rows = Read("t.csv", content);
        Assert.All(rows, static row => Assert.Equal(["text", "label"], row.Fields.Keys));
        Assert.Equal(["x", "y"], rows.Select(static row => row.Fields["label"]));
        Assert.StartsWith("t.csv:3 has a value in the field 3", Fails(ErrorIds.DataLineInvalid, "t.csv", "text,label,\na,x,\nb,y,z\n").Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("text,text\na,b\n", "'text' twice")]
    [InlineData("text,,label\na,b,c\n", "without a name")]
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
    public void Byte_order_marks_do_not_belong_to_the_data(string name, string content)
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

    [Theory]
    [InlineData("text;label\na, b, c;x\nd;y\n", "';'")]
    [InlineData("text;label\n\"a; \"\"b\"\"\n\nc\";x\n\nd, e;y\n", "';'")]
    [InlineData("text\tlabel\na;b\tx\nc\ty\n", "tabs")]
    [InlineData("text|label\na, b|x\n", "'|'")]
    public void Csv_with_something_else_between_its_fields_is_found_and_said(string content, string delimiter)
    {
        DataReading reading = new();
        IReadOnlyList<DataRow> rows = Read("t.csv", content, reading);
        Assert.All(rows, static row => Assert.Equal(["text", "label"], row.Fields.Keys));
        Assert.Equal("x", rows[0].Fields["label"]);
        Assert.Contains(delimiter, Assert.Single(reading.Notes), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("sep=;\r\ntext;label\r\n\"a; b\";x\r\n", ";")]
    [InlineData("\"sep=;\"\ntext;label\n\"a; b\";x\n", ";")]
    [InlineData("SEP=\t\ntext\tlabel\na; b\tx\n", "tabs")]
    [InlineData("sep=,\ntext,label\na; b,x\n", null)]
    public void The_line_in_which_Excel_reads_what_separates_fields_is_not_a_header(string content, string? said)
    {
        DataReading reading = new();
        DataRow row = Assert.Single(Read("t.csv", content, reading));
        Assert.Equal(("a; b", "x", "t.csv:3"), (row.Fields["text"], row.Fields["label"], row.Origin));
        Assert.Equal(said is null ? 0 : 1, reading.Notes.Count(note => note.Contains(said!, StringComparison.Ordinal)));
        Assert.StartsWith("t.csv:1 says that ';' stands between fields", Fails(ErrorIds.DataLineInvalid, "t.csv", "sep=;\ntext,label\na,x\n").Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("text,label\na;b,x\nc;d,y\n")]
    [InlineData("text\na;b\nc;d\n")]
    public void Csv_with_commas_needs_no_note(string content)
    {
        DataReading reading = new();
        Assert.Equal(["a;b", "c;d"], Read("t.csv", content, reading).Select(static row => row.Fields["text"]));
        Assert.Empty(reading.Notes);
    }

    [Theory]
    [InlineData("t.jsonl.gz", "{\"text\":\"ä\"}\n")]
    [InlineData("t.json.gz", "[{\"text\":\"ä\"}]")]
    [InlineData("T.CSV.GZ", "text\nä\n")]
    public void Compressed_files_are_read(string name, string content)
    {
        using (GZipStream file = new(File.Create(_folder[name]), CompressionLevel.Fastest))
        {
            file.Write(Encoding.UTF8.GetBytes(content));
        }

        Assert.Equal("ä", Assert.Single(DataReader.ReadFile(_folder[name])).Fields["text"]);
        byte[] damaged = File.ReadAllBytes(_folder[name]);
        damaged[0] ^= 1;
        File.WriteAllBytes(_folder[name], damaged);
        ErrorAssert.Throws(ErrorIds.FileNotReadable, () => DataReader.ReadFile(_folder[name]), name, "gzip");
    }

    [Fact]
    public void A_compressed_file_that_is_not_whole_is_an_error_wherever_it_ends()
    {
        static byte[] Compressed(string text)
        {
            using MemoryStream file = new();
            using (GZipStream compressed = new(file, CompressionLevel.Optimal))
            {
                compressed.Write(Encoding.UTF8.GetBytes(text));
            }

            return file.ToArray();
        }

        byte[] first = Compressed(string.Concat(Enumerable.Range(0, 500).Select(static i => $"{{\"text\":\"{i * 7919 % 1000}\"}}\n")));
        byte[] whole = [.. first, .. Compressed(""), .. Compressed("{\"text\":\"last\"}\n")];
        File.WriteAllBytes(_folder["t.jsonl.gz"], whole);
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(_folder["t.jsonl.gz"]);
        Assert.Equal((501, "last"), (rows.Count, rows[^1].Fields["text"]));

        foreach (byte[] damaged in (byte[][])[whole[..^1], whole[..^8], whole[..^9], whole[..(first.Length - 1)], whole[..(first.Length - 4)], first[..5], [.. first, .. "more"u8]])
        {
            File.WriteAllBytes(_folder["t.jsonl.gz"], damaged);
            ErrorAssert.Throws(ErrorIds.FileNotReadable, () => DataReader.ReadFile(_folder["t.jsonl.gz"], new DataReading { SkipInvalid = true }, null, TestContext.Current.CancellationToken), "t.jsonl.gz", "damaged");
        }
    }

    [Fact]
    public void Columns_have_the_names_that_are_expected()
    {
        DataReading reading = new() { Columns = new Dictionary<string, string> { ["text"] = "subject", ["label"] = "Team" } };
        DataRow row = Assert.Single(Read("t.csv", "Text,subject,team\nlong,short,network\n", reading));
        Assert.Equal("short", RowFields.Text(row, "text", "text"));
        Assert.Equal("network", RowFields.Label(row, "label", "label"));
        Assert.Equal("short", row.Fields["subject"]);

        Assert.Equal(("a", "b"), Swapped(Assert.Single(Read("u.csv", "text,label\nb,a\n", new() { Columns = new Dictionary<string, string> { ["text"] = "label", ["label"] = "text" } }))));
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => Read("v.csv", "title,team\na,b\n", reading), "v.csv:2", "subject", "title, team");

        static (string, string) Swapped(DataRow row) => (RowFields.Text(row, "text", "text"), RowFields.Label(row, "label", "label"));
    }

    [Theory]
    [InlineData("""{"ticket":{"subject":"short","by":{"team":"network"}}}""")]
    [InlineData("""{"ticket.subject":"short","ticket":{"subject":"long","by":{"team":"network"}}}""")]
    public void A_column_may_be_a_member_of_an_object(string json)
    {
        DataReading reading = new() { Columns = new Dictionary<string, string> { ["text"] = "ticket.subject", ["label"] = "ticket.by.team" } };
        DataRow row = Assert.Single(Read("t.jsonl", json + "\n", reading));
        Assert.Equal(("short", "network"), (RowFields.Text(row, "text", "text"), RowFields.Label(row, "label", "label")));
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => Read("u.jsonl", """{"ticket":{"subject":"a","by":"b"}}""", reading), "u.jsonl:1", "ticket.by.team");
    }

    [Theory]
    [InlineData("t.jsonl", "{\"text\":\"a\"}\nnot json\n[1]\n{\"text\":\"b\"}\n{\"other\":1}\n", 3, "t.jsonl:2")]
    [InlineData("t.json", "[{\"text\":\"a\"}, 1, {\"text\":\"b\"}, {\"other\":1}]", 2, "t.json[1]")]
    [InlineData("t.csv", "text,label\na,x\nonly one\n\"b\"c,y\nb,z\n", 2, "t.csv:3")]
    public void Rows_that_do_not_fit_are_skipped_and_counted_where_that_is_wanted(string name, string content, int skipped, string first)
    {
        DataReading reading = new() { SkipInvalid = true, Columns = new Dictionary<string, string> { ["copy"] = "text" } };
        Assert.Equal(["a", "b"], Read(name, content, reading).Select(static row => row.Fields["copy"]));
        Assert.Equal(skipped, reading.SkippedCount);
        Assert.StartsWith($"{skipped} rows do not fit and are skipped: {first} ", Assert.Single(reading.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Nothing_left_is_an_error_that_says_what_was_skipped()
    {
        DataReading reading = new() { SkipInvalid = true };
        IReadOnlyList<DataRow> rows = Read("t.jsonl", "oops\n", reading);
        ErrorAssert.Throws(ErrorIds.DataEmpty, () => reading.ReadFitting(rows, static row => row), "t.jsonl:1");
        ErrorAssert.Throws(ErrorIds.DataEmpty, () => new DataReading().ReadFitting(rows, static row => row), "no rows");
        Fails(ErrorIds.DataHeaderInvalid, "t.csv", "text,text\na,b\n");
    }

    private IReadOnlyList<DataRow> Read(string name, string content, DataReading reading)
    {
        File.WriteAllText(_folder[name], content);
        return DataReader.ReadFile(_folder[name], reading, onRows: null, TestContext.Current.CancellationToken);
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
        Assert.Equal(600, DataReader.ReadFile(_folder["rows.jsonl"], new(), counts.Add, TestContext.Current.CancellationToken).Count);
        Assert.Equal([256, 512], counts);

        using CancellationTokenSource stop = new();
        Assert.Throws<OperationCanceledException>(() => DataReader.ReadFile(_folder["rows.jsonl"], new(), _ => stop.Cancel(), stop.Token));
    }
}
