namespace LoKr.Core.Chat;

/// <summary>Something that a template calls: a macro, or a function that the reference gives to every template.</summary>
internal delegate object? TemplateFunction(TemplateRun run, int line, TemplateArguments arguments);

/// <summary>Arguments of a call, a filter or a test.</summary>
/// <param name="Positional">Those by place.</param>
/// <param name="Named">Those by name.</param>
internal sealed record TemplateArguments(IReadOnlyList<object?> Positional, IReadOnlyDictionary<string, object?> Named)
{
    public static TemplateArguments None { get; } = new([], new Dictionary<string, object?>());
}

/// <summary>A filter, a test or a method as it is called: the value comes first, its arguments are bound to their names.</summary>
/// <param name="Run">The rendering.</param>
/// <param name="Line">Its line, for errors.</param>
/// <param name="Value">What it is applied to.</param>
/// <param name="Given">The arguments as they were given.</param>
/// <param name="Bound">The arguments by place; <see cref="Absent"/> where one was not given.</param>
internal readonly record struct TemplateCall(TemplateRun Run, int Line, object? Value, TemplateArguments Given, object?[] Bound)
{
    /// <summary>Stands for an argument that was not given.</summary>
    public static object Absent { get; } = new();

    /// <summary>The value as a text, as <c>str</c> gives it.</summary>
    public string Text => TemplateValues.Text(Line, Value);

    /// <summary>The items of the value.</summary>
    public IEnumerable<object?> Items => ItemsOf(Value);

    public bool Has(int index) => !ReferenceEquals(Bound[index], Absent);

    public object? Get(int index, object? otherwise = null) => Has(index) ? Bound[index] : otherwise;

    /// <summary>An argument that decides: whether it is true.</summary>
    public bool Flag(int index) => TemplateValues.IsTrue(Get(index));

    /// <summary>An argument that is a text.</summary>
    public string TextOf(int index) => TemplateValues.PlainText(Bound[index]) ?? throw TemplateError.Failed(Line, $"a text is needed, not {TemplateValues.Kind(Bound[index])}");

    /// <summary>An argument that is a whole number.</summary>
    public long WholeOf(int index, long otherwise) => !Has(index) ? otherwise
        : TemplateValues.Integer(Bound[index]) ?? throw TemplateError.Failed(Line, $"a whole number is needed, not {TemplateValues.Kind(Bound[index])}");

    /// <summary>The items of a value, each of which is a step.</summary>
    public IEnumerable<object?> ItemsOf(object? value)
    {
        IEnumerable<object?> items = TemplateValues.Iterate(value) ?? throw TemplateError.Failed(Line, $"{TemplateValues.Kind(value)} has no items");
        return Counted(Run, Line, items);

        static IEnumerable<object?> Counted(TemplateRun run, int line, IEnumerable<object?> items)
        {
            foreach (object? item in items)
            {
                run.Step(line);
                yield return item;
            }
        }
    }
}

/// <summary>A filter, a test or a method with its parameters.</summary>
internal sealed class TemplateOperation
{
    private readonly string[] _parameters;
    private readonly int _required;
    private readonly bool _takesMore;
    private readonly Func<TemplateCall, object?> _run;

    /// <summary>Creates one.</summary>
    /// <param name="parameters">
    /// Names of its parameters with spaces between; <c>!</c> behind one that has to be given; <c>_</c> before one that has no name for callers;
    /// <c>*</c> for any others.
    /// </param>
    /// <param name="run">What it does.</param>
    public TemplateOperation(string parameters, Func<TemplateCall, object?> run)
    {
        string[] names = parameters.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        _takesMore = names is [.., "*"];
        _required = names.Count(static name => name.EndsWith('!'));
        _parameters = [.. names.Where(static name => name != "*").Select(static name => name.TrimEnd('!'))];
        _run = run;
    }

    public object? Call(TemplateRun run, int line, string name, object? value, TemplateArguments arguments)
    {
        object?[] bound = new object?[_parameters.Length];
        Array.Fill(bound, TemplateCall.Absent);
        for (int i = 0; i < Math.Min(bound.Length, arguments.Positional.Count); i++)
        {
            bound[i] = arguments.Positional[i];
        }

        foreach ((string parameter, object? argument) in _takesMore ? TemplateArguments.None.Named : arguments.Named)
        {
            int index = parameter.StartsWith('_') ? -1 : Array.IndexOf(_parameters, parameter);
            if (index < 0 || !ReferenceEquals(bound[index], TemplateCall.Absent))
            {
                throw TemplateError.Failed(line, $"'{name}' takes no argument '{parameter}' here");
            }

            bound[index] = argument;
        }

        if (!_takesMore && arguments.Positional.Count > bound.Length)
        {
            throw TemplateError.Failed(line, $"'{name}' takes {bound.Length} arguments at most");
        }

        if (Array.FindIndex(bound, 0, _required, static argument => ReferenceEquals(argument, TemplateCall.Absent)) is int missing and >= 0)
        {
            throw TemplateError.Failed(line, $"'{name}' needs its argument '{_parameters[missing].TrimStart('_')}'");
        }

        return _run(new(run, line, value, arguments, bound));
    }
}
