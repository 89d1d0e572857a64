using System.Numerics;

namespace LoKr.Core.Chat;

/// <summary>The tests (<c>is</c>) that templates may use; the parser refuses every other one.</summary>
internal static class TemplateTests
{
    public static IReadOnlyDictionary<string, TemplateOperation> All { get; } = new Dictionary<string, TemplateOperation>(StringComparer.Ordinal)
    {
        ["boolean"] = new("", static call => call.Value is bool),
        ["callable"] = new("", static call => call.Value is TemplateFunction or TemplateUndefined),
        ["defined"] = new("", static call => call.Value is not TemplateUndefined),
        ["divisibleby"] = new("num!", static call => TemplateValues.AreEqual(Remainder(call, call.Get(0)), 0L)),
        ["even"] = new("", static call => TemplateValues.AreEqual(Remainder(call, 2L), 0L)),
        ["false"] = new("", static call => call.Value is false),
        ["float"] = new("", static call => call.Value is double),
        ["in"] = new("seq!", static call => TemplateLibrary.Contains(call.Line, call.Get(0), call.Value)),
        ["integer"] = new("", static call => call.Value is long or BigInteger),
        ["iterable"] = new("", static call => call.Value is TemplateLoop || TemplateValues.Iterate(call.Value) is not null),
        ["lower"] = new("", static call => PythonText.IsLower(call.Text)),
        ["mapping"] = new("", static call => call.Value is TemplateMap),
        ["none"] = new("", static call => call.Value is null),
        ["number"] = new("", static call => PythonNumbers.IsNumber(call.Value)),
        ["odd"] = new("", static call => TemplateValues.AreEqual(Remainder(call, 2L), 1L)),
        ["sameas"] = new("other!", static call => IsSame(call)),
        ["sequence"] = new("", static call => call.Value is IReadOnlyList<object?> or TemplateMap or TemplateUndefined || TemplateValues.PlainText(call.Value) is not null),
        ["string"] = new("", static call => TemplateValues.PlainText(call.Value) is not null),
        ["true"] = new("", static call => call.Value is true),
        ["undefined"] = new("", static call => call.Value is TemplateUndefined),
        ["upper"] = new("", static call => PythonText.IsUpper(call.Text)),
        ["=="] = Comparison("=="),
        ["eq"] = Comparison("=="),
        ["equalto"] = Comparison("=="),
        ["!="] = Comparison("!="),
        ["ne"] = Comparison("!="),
        [">"] = Comparison(">"),
        ["gt"] = Comparison(">"),
        ["greaterthan"] = Comparison(">"),
        [">="] = Comparison(">="),
        ["ge"] = Comparison(">="),
        ["<"] = Comparison("<"),
        ["lt"] = Comparison("<"),
        ["lessthan"] = Comparison("<"),
        ["<="] = Comparison("<="),
        ["le"] = Comparison("<="),
    };

    private static TemplateOperation Comparison(string sign) => new("_other!", call => CompareExpression.Holds(call.Line, sign, call.Value, call.Get(0)));

    private static object? Remainder(TemplateCall call, object? divisor) => PythonNumbers.Calculate(call.Line, "%", call.Value, divisor)
        ?? throw TemplateError.Failed(call.Line, $"a number is needed, not {TemplateValues.Kind(call.Value)}");

    // Python has one none, one true and one false; whether two equal texts or numbers are one object is not told.
    private static bool IsSame(TemplateCall call) => (call.Value, call.Get(0)) switch
    {
        (null or bool, var other) => Equals(call.Value, other),
        (_, null or bool) => false,
        (TemplateMap or TemplateList, var other) => ReferenceEquals(call.Value, other),
        _ => throw TemplateError.Unsupported(call.Line, "'sameas' of texts and numbers"),
    };
}
