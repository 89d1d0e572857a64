using System.Runtime.CompilerServices;
using System.Text;

namespace LoKr.Core.Chat;

/// <summary>
/// One rendering of a template: its variables, its output, and limits of time, depth and size. It reaches nothing but the values it is given.
/// </summary>
internal sealed class TemplateRun
{
    private const int MostSteps = 10_000_000;
    private const int MostCharacters = 20_000_000;
    private const int DeepestMacro = 30;

    // So many characters or items of a value that is read are one more step.
    private const int SizeOfStep = 256;

    private readonly Stack<StringBuilder> _outputs = new([new StringBuilder()]);
    private readonly List<(int Start, int End)> _generations = [];
    private bool _hasWritten;
    private int _macros;
    private long _steps;
    private long _characters;

    /// <param name="variables">The variables that the template is given.</param>
    /// <param name="now">The time for <c>strftime_now</c>.</param>
    public TemplateRun(IReadOnlyDictionary<string, object?> variables, DateTime now)
    {
        Now = now;
        Current = new(new(variables, StringComparer.Ordinal), Outer: null);
    }

    public DateTime Now { get; }

    /// <summary>The innermost variables.</summary>
    public TemplateScope Current { get; private set; }

    /// <summary>The text that filters of a block are applied to.</summary>
    public string? Held { get; private set; }

    /// <summary>Whether something is marked as said by the assistant in a text that was captured, whose place in the output is not known.</summary>
    public bool MarksCaptured { get; private set; }

    /// <summary>The text so far.</summary>
    public string Output => _outputs.Peek().ToString();

    /// <summary>Spans that the template marks as said by the assistant, in UTF-16 units of the output.</summary>
    public IReadOnlyList<(int Start, int End)> Generations => _generations;

    /// <summary>Counts a step.</summary>
    public void Step(int line) => Steps(line, 1);

    /// <summary>Counts steps.</summary>
    public void Steps(int line, double count)
    {
        _steps += (long)Math.Min(count, MostSteps + 1.0);
        if (_steps > MostSteps)
        {
            throw TemplateError.Limit(line, "it takes too many steps");
        }
    }

    /// <summary>The value of an expression.</summary>
    public object? Value(TemplateExpression expression)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw TemplateError.Limit(expression.Line, "its parts are nested too deep");
        }

        object? value = expression.Evaluate(this);
        Steps(expression.Line, 1 + (value switch
        {
            string text => text.Length / SizeOfStep,
            TemplateList list => list.Count / SizeOfStep,
            _ => 0,
        }));
        return value;
    }

    /// <summary>Runs a template.</summary>
    public void Run(TemplateBlock template)
    {
        using (Scope(template))
        {
            Run(template.Statements);
        }
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

    public void Write(int line, string text)
    {
        _outputs.Peek().Append(Checked(line, text));
        _hasWritten |= _outputs.Count == 1;
    }

    /// <summary>A text that was made, counted against the limit of all texts.</summary>
    public string Checked(int line, string text)
    {
        _characters += text.Length;
        return _characters <= MostCharacters ? text : throw TemplateError.Limit(line, "it makes too much text");
    }

    /// <summary>A text so many times.</summary>
    public string Repeat(int line, string text, long count) => count <= 0 ? ""
        : text.Length == 0 ? ""
        : count <= MostCharacters / text.Length ? Checked(line, new StringBuilder().Insert(0, text, (int)count).ToString())
        : throw TemplateError.Limit(line, "it makes too much text");

    /// <summary>Texts with one between them.</summary>
    public string Joined(int line, string separator, IEnumerable<string> parts)
    {
        string[] all = [.. parts];
        long length = all.Sum(static part => (long)part.Length) + ((long)separator.Length * Math.Max(all.Length - 1, 0));
        return length <= MostCharacters ? Checked(line, string.Join(separator, all)) : throw TemplateError.Limit(line, "it makes too much text");
    }

    /// <summary>The output of statements as a text, and how they ended.</summary>
    public (string Text, TemplateFlow Flow) Capture(TemplateBlock body)
    {
        _outputs.Push(new());
        try
        {
            using (Scope(body))
            {
                TemplateFlow flow = Run(body.Statements);
                return (_outputs.Peek().ToString(), flow);
            }
        }
        finally
        {
            _outputs.Pop();
        }
    }

    /// <summary>A variable, from the inside out, a function, or what is not there.</summary>
    public object? Get(string name) => Current.TryGet(name, out object? value) ? value
        : TemplateLibrary.Functions.TryGetValue(name, out TemplateFunction? function) ? function
        : new TemplateUndefined(name);

    /// <summary>Sets a variable of the innermost scope.</summary>
    public void Set(string name, object? value) => Current.Variables[name] = value;

    /// <summary>A scope for a turn of a loop, or for a block.</summary>
    public IDisposable Scope(TemplateBlock? block = null)
    {
        Ending scope = Enter(Current);
        foreach (string name in block?.Late ?? [])
        {
            Set(name, new TemplateUndefined(name));
        }

        return scope;
    }

    /// <summary>A scope for a call of a macro, which sees its own variables and those of the place where it is written.</summary>
    public IDisposable MacroScope(int line, TemplateScope outer)
    {
        if (++_macros > DeepestMacro)
        {
            throw TemplateError.Limit(line, "macros call each other too deep");
        }

        IDisposable scope = Enter(outer);
        return new Ending(() =>
        {
            scope.Dispose();
            _macros--;
        });
    }

    /// <summary>Holds a text for filters of a block.</summary>
    public IDisposable Hold(string text)
    {
        string? before = Held;
        Held = text;
        return new Ending(() => Held = before);
    }

    /// <summary>
    /// Marks what is written until the end as said by the assistant; only the output itself is marked, not texts that are captured, and, as in
    /// transformers, not what nothing was written before.
    /// </summary>
    public IDisposable Generation()
    {
        int start = _outputs.Peek().Length;
        int depth = _outputs.Count;
        bool hasWritten = _hasWritten;
        return new Ending(() =>
        {
            if (depth == 1 && hasWritten)
            {
                _generations.Add((start, _outputs.Peek().Length));
            }

            MarksCaptured |= depth > 1;
        });
    }

    private Ending Enter(TemplateScope outer)
    {
        TemplateScope before = Current;
        Current = new(new(StringComparer.Ordinal), outer);
        return new(() => Current = before);
    }

    private sealed class Ending(Action end) : IDisposable
    {
        public void Dispose() => end();
    }
}

/// <summary>Variables of a block, and those around it.</summary>
/// <param name="Variables">Its own.</param>
/// <param name="Outer">Those around it; null for those of the template.</param>
internal sealed record TemplateScope(Dictionary<string, object?> Variables, TemplateScope? Outer)
{
    /// <summary>Finds a variable from the inside out.</summary>
    public bool TryGet(string name, out object? value)
    {
        for (TemplateScope? scope = this; scope is not null; scope = scope.Outer)
        {
            if (scope.Variables.TryGetValue(name, out value))
            {
                return true;
            }
        }

        value = null;
        return false;
    }
}
