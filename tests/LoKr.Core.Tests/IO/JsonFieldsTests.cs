using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class JsonFieldsTests
{
    private const string Source = "a/file.json";
    private static readonly JsonErrors s_errors = new("LoKr.Damaged", "LoKr.Refused", "Get it again.", "Use another.");

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("[1]")]
    [InlineData("\"x\"")]
    [InlineData("{} {}")]
    [InlineData("""{"a":1,"a":2}""")]
    [InlineData("""{"o":{"a":1,"\u0061":2}}""")]
    public void Text_that_is_not_one_object_with_distinct_keys_is_an_error_that_names_the_source(string json) =>
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse(json, Source, s_errors), Source, "Get it again.");

    [Fact]
    public void Nesting_without_end_is_an_error()
    {
        string json = string.Concat(Enumerable.Repeat("{\"a\":", 5000)) + "1" + new string('}', 5000);
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse(json, Source, s_errors), Source);
    }

    [Fact]
    public void A_byte_order_mark_is_skipped_and_damaged_utf8_is_an_error()
    {
        Assert.Equal("é", JsonFields.Parse([0xEF, 0xBB, 0xBF, .. "{\"a\":\"é\"}"u8], Source, s_errors).GetString("a"));
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse(Encoding.Latin1.GetBytes("{\"a\":\"é\"}"), Source, s_errors), Source, "UTF-8");
    }

    [Theory]
    [InlineData("""{"a":"\ud800"}""")]
    [InlineData("""{"a":["\udc00x"]}""")]
    public void A_lone_surrogate_is_an_error_that_names_the_key(string json) =>
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse(json, Source, s_errors), Source, "'a'", "line 1");

    [Fact]
    public void A_lone_surrogate_is_an_error_that_names_the_line_and_the_full_key() => ErrorAssert.Throws(
        "LoKr.Damaged",
        () => JsonFields.Parse("{\"x\":{\"y\":1},\n\"ok\":\"\\ud83d\\ude80\",\n\"a\":[{\"b\":\"\\uD83D\"}]}", Source, s_errors), Source, "line 3", "'a.b'");

    [Fact]
    public void A_lone_surrogate_in_a_key_is_an_error() =>
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse("""{"\ud800":1}""", Source, s_errors), Source, "line 1");

    [Fact]
    public void A_lone_surrogate_in_the_text_itself_is_an_error() =>
        ErrorAssert.Throws("LoKr.Damaged", () => JsonFields.Parse("{\"a\":\"\uD83D\"}", Source, s_errors), Source);

    [Fact]
    public void A_nested_key_is_named_in_full()
    {
        JsonFields fields = JsonFields.Parse("""{"model":{"parts":[{"size":0}]}}""", Source, s_errors);
        JsonFields part = fields.GetObject("model").GetObjects("parts")[0];
        ErrorAssert.Throws("LoKr.Damaged", () => part.GetSize("size"), "'model.parts[0].size' in 'a/file.json' is 0, not a positive whole number.", "Get it again.");
        ErrorAssert.Throws("LoKr.Damaged", () => part.GetSize("other"), "'model.parts[0].other' in 'a/file.json' is missing.");
        ErrorAssert.Throws("LoKr.Refused", () => part.AllowOnly("other"), "'model.parts[0].size'", "Use another.");
    }

    [Fact]
    public void Members_that_nobody_asked_for_are_listed_with_their_full_names()
    {
        JsonFields part = JsonFields.Parse("""{"model":{"a":1,"b":null,"c":[]}}""", Source, s_errors).GetObject("model");
        Assert.Equal(1, part.GetInt("a"));
        Assert.Equal(["model.b", "model.c"], part.Unread);
    }

    [Fact]
    public void Null_counts_as_absent()
    {
        JsonFields fields = JsonFields.Parse("""{"a":null}""", Source, s_errors);
        Assert.False(fields.Has("a"));
        Assert.True(fields.Contains("a"));
        Assert.False(fields.Contains("b"));
        Assert.Equal("x", fields.GetString("a", "x"));
        Assert.Null(fields.FindBool("a"));
        Assert.Null(fields.FindObject("a"));
        Assert.Equal(0, fields.GetObjectOrEmpty("a").Count);
        Assert.Empty(fields.GetInts("a"));
        ErrorAssert.Throws("LoKr.Damaged", () => fields.GetString("a"), "'a'");
    }

    [Theory]
    [InlineData("2147483648", false)]
    [InlineData("-1", true)]
    [InlineData("3.0", true)]
    [InlineData("3.5", false)]
    [InlineData("1e400", false)]
    [InlineData("true", false)]
    public void Whole_numbers_have_to_fit(string value, bool fits)
    {
        JsonFields fields = JsonFields.Parse($"{{\"a\":{value}}}", Source, s_errors);
        if (fits)
        {
            Assert.Equal(value.StartsWith('-') ? -1 : 3, fields.GetInt("a"));
        }
        else
        {
            ErrorAssert.Throws("LoKr.Damaged", () => fields.GetInt("a"), value);
        }
    }

    [Fact]
    public void A_choice_lists_what_is_supported()
    {
        JsonFields fields = JsonFields.Parse("""{"a":"two","b":"three","c":1}""", Source, s_errors);
        Assert.Equal(2, fields.GetChoice("a", 0, ("one", 1), ("two", 2)));
        Assert.Equal(0, fields.GetChoice("d", 0, ("one", 1)));
        ErrorAssert.Throws("LoKr.Refused", () => fields.GetChoice("b", 0, ("one", 1), ("two", 2)), "\"three\"", "\"one\", \"two\"");
        ErrorAssert.Throws("LoKr.Damaged", () => fields.GetChoice("c", 0, ("one", 1)), "\"one\"");
    }

    [Fact]
    public void A_copy_may_be_changed()
    {
        JsonFields fields = JsonFields.Parse("""{"a":1}""", Source, s_errors);
        fields.ToJsonObject()["a"] = 2;
        Assert.Equal(1, fields.GetInt("a"));
    }
}
