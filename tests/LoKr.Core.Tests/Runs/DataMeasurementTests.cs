using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Training;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runs;

public sealed class DataMeasurementTests
{
    [Fact]
    public void Rows_that_are_repeated_contradictory_empty_and_without_label_are_counted()
    {
        LoKrDataSummary data = DataMeasurement.Measure(
        [
            Rows.Labeled("vpn is slow", "network"), Rows.Labeled(" vpn is slow ", "network"), Rows.Labeled("vpn is slow", "hardware"),
            Rows.Labeled("", "network"), Rows.Labeled("card", null), Rows.Labeled("invoice", "billing"), Rows.Labeled("vpn is slow", "network"),
        ]);
        Assert.Equal((7, 1, 2, 4, 1), (data.RowCount, data.EmptyCount, data.DuplicateCount, data.ContradictionCount, data.UnlabeledCount));
        Assert.Equal(["billing 1", "hardware 1", "network 4"], data.Labels.Select(static label => label.ToString()));
        Assert.Equal(4 / 6.0, data.Labels[2].Share, 12);
        Assert.Equal(("characters", 0, 11.0, 13), (data.LengthUnit, data.ShortestLength, data.MedianLength, data.LongestLength));
        Assert.Equal(["Empty", "Duplicates", "Contradictions", "Unlabeled"], data.Findings.Select(static finding => finding.Kind.ToString()));
        Assert.Null(data.ReferenceRowCount);
        Assert.Null(data.TokenCount);
    }

    [Fact]
    public void Rows_of_the_validation_data_and_labels_that_only_one_side_has_are_found()
    {
        LoKrDataSummary data = DataMeasurement.Measure(
            [Rows.Labeled("a", "x"), Rows.Labeled("b", "new"), Rows.Labeled("c", "x"), Rows.Labeled("d", "y")],
            new()
            {
                Reference = [Rows.Labeled("a", "x"), Rows.Labeled("b", "y"), Rows.Labeled("e", "y"), Rows.Labeled("f", "gone")],
                Validation = [Rows.Labeled("c ", "x"), Rows.Labeled("g", "only"), Rows.Labeled("h", "x")],
            });
        Assert.Equal((4, 1, 3, 1), (data.ReferenceRowCount, data.KnownCount, data.ValidationRowCount, data.SharedCount));
        Assert.Equal(["new"], data.NewLabels);
        Assert.Equal(["only"], data.UnseenLabels);
        Assert.Equal(["gone", "new", "only", "x", "y"], data.Labels.Select(static label => label.Label));
        Assert.Equal((0.5, 0.25), (data.Labels[3].Share, data.Labels[3].ReferenceShare));
    }

    [Fact]
    public void Shifts_are_those_of_their_definitions()
    {
        // Shares 3/4, 1/4 before and 1/4, 3/4 now; half a row more in both bins of the index.
        Shift shift = Shift.Of([30, 10], [10, 30]);
        double index = 2 * (30.5 - 10.5) / 41 * Math.Log(30.5 / 10.5);
        double divergence = (0.75 * Math.Log2(0.75 / 0.5)) + (0.25 * Math.Log2(0.25 / 0.5));
        Assert.Equal(index, shift.StabilityIndex, 12);
        Assert.Equal(divergence, shift.Divergence, 12);
        Assert.Equal(new Shift(0, 0), Shift.Of([5, 7, 0], [5, 7, 0]));
        Assert.Equal(1, Shift.Of([9, 0], [0, 4]).Divergence, 12);
    }

    [Fact]
    public void Labels_and_lengths_that_shift_are_found_and_stable_ones_are_not()
    {
        DataRow[] before = [.. Enumerable.Range(0, 400).Select(static i => Rows.Labeled(new string('x', 10 + (i * 7 % 40)), i % 4 == 0 ? "a" : "b"))];
        DataRow[] same = [.. Enumerable.Range(400, 400).Select(static i => Rows.Labeled(new string('y', 10 + (i * 7 % 40)), i % 4 == 0 ? "a" : "b"))];
        DataRow[] other = [.. Enumerable.Range(0, 400).Select(static i => Rows.Labeled(new string('y', 40 + (i * 7 % 40)), i % 4 != 0 ? "a" : "b"))];
        LoKrDataSummary stable = DataMeasurement.Measure(same, new() { Reference = before });
        LoKrDataSummary shifted = DataMeasurement.Measure(other, new() { Reference = before });
        Assert.InRange(stable.LabelShift!.Value, 0, 0.01);
        Assert.InRange(stable.LengthShift!.Value, 0, 0.01);
        Assert.DoesNotContain(stable.Findings, static finding => finding.Kind is DataFindingKind.LabelShift or DataFindingKind.LengthShift);
        Assert.InRange(shifted.LabelShift!.Value, 1, 1.2);
        Assert.InRange(shifted.LengthDivergence!.Value, 0.5, 1);
        Assert.Contains(shifted.Findings, static finding => finding.Kind is DataFindingKind.LengthShift);
    }

    [Fact]
    public void A_model_counts_its_tokens_the_rows_it_cuts_and_the_labels_it_lacks()
    {
        // One token a character, one more before a text, and one after a completion.
        using LoKrModel classifier = TinyClassifier.Create("a", "b");
        LoKrDataSummary data = DataMeasurement.Measure([Rows.Labeled("1234", "a"), Rows.Labeled("123456789", "c")], new() { Model = classifier, MaxLength = 8 });
        Assert.Equal(("tokens", 5, 10, 15L, 8, 1), (data.LengthUnit, data.ShortestLength, data.LongestLength, data.TokenCount, data.MaxLength, data.CutCount));
        Assert.Equal(["c"], data.NewLabels);
        Assert.Null(data.UnknownTokenShare);

        using LoKrModel language = TinyLanguageModel.Create();
        data = DataMeasurement.Measure([Rows.Pair("12", "345"), Rows.Text("1")], new() { Model = language });
        Assert.Equal((3, 7, 32, 0), (data.ShortestLength, data.LongestLength, data.MaxLength, data.CutCount));
        Assert.Empty(data.Labels);
    }

    [Fact]
    public void A_finding_over_its_threshold_is_an_error_with_its_own_id()
    {
        DataRow[] rows = [Rows.Labeled("a", "x"), Rows.Labeled("a", "x"), Rows.Labeled("", "z"), Rows.Labeled("b", "x")];
        LoKrDataSummary data = DataMeasurement.Measure(rows, new()
        {
            Reference = [Rows.Labeled("a", "x"), Rows.Labeled("q", "x")],
            Thresholds = new Dictionary<DataFindingKind, double> { [DataFindingKind.Duplicates] = 0.2, [DataFindingKind.Empty] = 0.25, [DataFindingKind.NewLabels] = 0, [DataFindingKind.Shared] = 0 },
        });
        Assert.Equal([ErrorIds.DataDuplicate, ErrorIds.DataLabelNew], data.Findings.Where(static finding => finding.IsExceeded).Select(static finding => finding.ErrorId));
        LoKrException error = data.Findings.First(static finding => finding.IsExceeded).ToException();
        Assert.Equal((ErrorIds.DataDuplicate, RunExitCodes.Invalid), (error.ErrorId, RunExitCodes.Of(error)));
        Assert.Contains("1 of 4 rows has the text and the label of an earlier one. That is 0.25, where 0.2 is allowed.", error.Message, StringComparison.Ordinal);

        // Each kind has an id of its own.
        string[] ids = [.. Enum.GetValues<DataFindingKind>().Select(static kind => new LoKrDataFinding { Kind = kind, Value = 1, IsExceeded = true, Message = "" }.ErrorId)];
        Assert.Equal(ids.Length, ids.Distinct().Count());
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => DataMeasurement.Measure([new DataRow(new Dictionary<string, object?> { ["words"] = "a" }, "t.jsonl:1")]), "text");
    }
}
