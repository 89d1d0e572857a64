using System.Text;

namespace LoKr.Core.Chat;

/// <summary>
/// One rendering of a template: its variables, its output, and limits of time, depth and size. It reaches nothing but the values it is given.
/// </summary>
internal sealed class TemplateRun
{
    private const int MostSteps = 2_000_000;
    private const int MostCharacters = 20_000_000;
    private const int DeepestMacro = 30;

    private readonly List<Dictionary<string, object?>> _scopes = [];
    private readonly Stack<StringBuilder> _outputs = new([new StringBuilder()]);
    private readonly List<(int Start, int End)> _generations = [];
    private int _firstScope;
    private int _macros;
    private int _steps;
    private long _characters;

    /// <param name="variables">The variables that the template is given.</param>
    /// <param name="now">The time for <c>strftime_now</c>.</param>
    public TemplateRun(IReadOnlyDictionary<string, object?> variables, DateTime now)
    {
        Now = now;
        _scopes.Add(new(variables, StringComparer.Ordinal));
    }

    public DateTime Now { get; }

    /// <summary>The text so far.</summary>
    public string Output => _outputs.Peek().ToString();

    /// <summary>What the template marks as said by the assistant, in UTF-16 units of the output.</summary>
    public IReadOnlyList<(int Start, int End)> Generations => _generations;

    /// <summary>Counts a step.</summary>
    public void Step(int line)
    {
        if (++_steps > MostSteps)
        {
            throw TemplateError.Limit(line, "it takes too many steps");
        }
    }

    /// <summary>The value of an expression.</summary>
    public object? Value(TemplateExpression expression)
    {
        Step(expression.Line);
        return expression.Evaluate(this);
    }

    /// <summary>Runs statements until one ends a loop or its turn.</summary>
    public TemplateFlow Run(IReadOnlyList<TemplateStatement> statements)
    {
        foreach (TemplateStatement statement in statements)
        {
            Step(statement.Line);
            if (statement.Run(this) is var flow and not TemplateFlow.Next)
            {
                return flow;
            }
        }

        return TemplateFlow.Next;
    }

    public void Write(int line, string text) => _outputs.Peek().Append(Checked(line, text));

    /// <summary>A text that was made, counted against the limit of all texts.</summary>
    public string Checked(int line, string text)
    {
        _characters += text.Length;
        return _characters <= MostCharacters ? text : throw TemplateError.Limit(line, "it makes too much text");
    }

    /// <summary>A text so many times.</summary>
    public string Repeat(int line, string text, long count) => count <= 0 ? ""
        : text.Length * Math.Min(count, MostCharacters) <= MostCharacters ? Checked(line, new StringBuilder().Insert(0, text, (int)count).ToString())
        : throw TemplateError.Limit(line, "it makes too much text");

    /// <summary>The output of statements as a text.</summary>
    public string Capture(IReadOnlyList<TemplateStatement> body)
    {
        _outputs.Push(new());
        try
        {
            Run(body);
            return _outputs.Peek().ToString();
        }
        finally
        {
            _outputs.Pop();
        }
    }

    /// <summary>A variable, from the inside out, a function, or what is not there.</summary>
    public object? Get(string name)
    {
        for (int i = _scopes.Count - 1; i >= 0; i = i > 0 && i <= _firstScope ? 0 : i - 1)
        {
            if (_scopes[i].TryGetValue(name, out object? value))
            {
                return value;
            }

            if (i == 0)
            {
                break;
            }
        }

        return TemplateLibrary.Functions.TryGetValue(name, out TemplateFunction? function) ? function : new TemplateUndefined(name);
    }

    /// <summary>Sets a variable of the innermost scope.</summary>
    public void Set(string name, object? value) => _scopes[^1][name] = value;

    /// <summary>Sets one variable, or several to the items of a value.</summary>
    public void Unpack(int line, IReadOnlyList<string> names, object? value)
    {
        if (names.Count == 1)
        {
            Set(names[0], value);
            return;
        }

        if (TemplateValues.Items(value) is not IReadOnlyList<object?> items || items.Count != names.Count)
        {
            throw TemplateError.Failed(line, $"{TemplateLibrary.Kind(value)} does not have {names.Count} items");
        }

        for (int i = 0; i < names.Count; i++)
        {
            Set(names[i], items[i]);
        }
    }

    /// <summary>A scope for a turn of a loop.</summary>
    public IDisposable Scope()
    {
        _scopes.Add(new(StringComparer.Ordinal));
        return new Ending(() => _scopes.RemoveAt(_scopes.Count - 1));
    }

    /// <summary>A scope for a call of a macro, which sees its own variables and those of the template.</summary>
    public IDisposable MacroScope(int line)
    {
        if (++_macros > DeepestMacro)
        {
            throw TemplateError.Limit(line, "macros call each other too deep");
        }

        int before = _firstScope;
        _scopes.Add(new(StringComparer.Ordinal));
        _firstScope = _scopes.Count - 1;
        return new Ending(() =>
        {
            _scopes.RemoveAt(_scopes.Count - 1);
            _firstScope = before;
            _macros--;
        });
    }

    /// <summary>Marks what is written until the end as said by the assistant; only the output itself is marked, not texts that are captured.</summary>
    public IDisposable Generation()
    {
        int start = _outputs.Peek().Length;
        int depth = _outputs.Count;
        return new Ending(() =>
        {
            if (depth == 1)
            {
                _generations.Add((start, _outputs.Peek().Length));
            }
        });
    }

    /// <summary>An attribute of a value.</summary>
    public static object? Attribute(int line, object? target, string name) => target switch
    {
        TemplateUndefined missing => throw TemplateError.Failed(line, $"'{missing.Name}' is not defined, so it has no '{name}'"),
        TemplateMap map when map.TryGet(name, out object? value) => value,
        TemplateNamespace space when space.Members.TryGet(name, out object? value) => value,
        _ => new TemplateUndefined(name),
    };

    /// <summary>Whether a text, a list or the keys of a dictionary hold a value.</summary>
    public static bool Contains(int line, object? container, object? value) => container switch
    {
        string text => value is string part ? text.Contains(part, StringComparison.Ordinal) : throw TemplateError.Failed(line, $"a text cannot hold {TemplateLibrary.Kind(value)}"),
        TemplateMap map => value is string key && map.Contains(key),
        TemplateList list => list.Exists(item => TemplateValues.AreEqual(item, value)),
        TemplateUndefined => false,
        _ => throw TemplateError.Failed(line, $"{TemplateLibrary.Kind(container)} cannot hold a value"),
    };

    private sealed class Ending(Action end) : IDisposable
    {
        public void Dispose() => end();
    }
}
