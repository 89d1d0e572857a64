namespace LoKr.Core.Chat;

/// <summary>An expression of a template.</summary>
/// <param name="Line">Its line, for errors.</param>
internal abstract record TemplateExpression(int Line)
{
    public abstract object? Evaluate(TemplateRun run);
}

internal sealed record ConstantExpression(int Line, object? Value) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => Value;
}

internal sealed record NameExpression(int Line, string Name) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => run.Get(Name);
}

/// <summary>A list or a tuple.</summary>
internal sealed record ListExpression(int Line, IReadOnlyList<TemplateExpression> Items, bool IsTuple) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => new TemplateList(Items.Select(run.Value)) { IsTuple = IsTuple };
}

internal sealed record MapExpression(int Line, IReadOnlyList<(TemplateExpression Key, TemplateExpression Value)> Members) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        TemplateMap map = new();
        foreach ((TemplateExpression key, TemplateExpression value) in Members)
        {
            object? name = run.Value(key);
            map[TemplateKey.IsKey(name) ? name : throw TemplateError.Failed(Line, $"{TemplateValues.Kind(name)} is not a key")] = run.Value(value);
        }

        return map;
    }
}

/// <summary><c>a.name</c>.</summary>
internal sealed record AttributeExpression(int Line, TemplateExpression Target, string Name) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateLibrary.Attribute(Line, run.Value(Target), Name);
}

/// <summary><c>a[index]</c>.</summary>
internal sealed record IndexExpression(int Line, TemplateExpression Target, TemplateExpression Index) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateLibrary.Item(Line, run.Value(Target), run.Value(Index));
}

/// <summary><c>a[start:stop:step]</c>.</summary>
internal sealed record SliceExpression(
    int Line, TemplateExpression Target, TemplateExpression? Start, TemplateExpression? Stop, TemplateExpression? Step) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? target = run.Value(Target);
        (long? start, long? stop, long step) = (Bound(Start), Bound(Stop), Bound(Step) ?? 1);
        return target switch
        {
            string text when step != 0 => PythonText.Slice(text, start, stop, step),
            TemplateList list when step != 0 => new TemplateList(TemplateValues.Slice(list, start, stop, step)) { IsTuple = list.IsTuple },
            TemplateRange range when step != 0 => Part(range, start, stop, step),
            TemplateMarkup => throw TemplateError.Unsupported(Line, "a part of a text that 'safe' marks"),
            _ => throw TemplateError.Failed(Line, $"{TemplateValues.Kind(target)} cannot be cut so"),
        };

        long? Bound(TemplateExpression? expression) => expression is null || run.Value(expression) is not object value
            ? null
            : TemplateValues.Integer(value) ?? throw TemplateError.Failed(Line, "a slice needs whole numbers");
    }

    private static TemplateRange Part(TemplateRange range, long? start, long? stop, long step)
    {
        (long first, long last) = TemplateValues.SliceBounds(range.Count, start, stop, step);
        int count = TemplateValues.Slice(range, start, stop, step).Count();
        return new(range.Start + (first * range.Step), range.Step * step, count) { Stop = range.Start + (last * range.Step) };
    }
}

/// <summary>Arguments as they are written.</summary>
/// <param name="Positional">Those by place.</param>
/// <param name="Named">Those by name.</param>
/// <param name="More">A list of further ones by place (<c>*list</c>).</param>
/// <param name="MoreNamed">A dictionary of further ones by name (<c>**map</c>).</param>
internal sealed record ArgumentExpressions(
    IReadOnlyList<TemplateExpression> Positional, IReadOnlyList<(string Name, TemplateExpression Value)> Named, TemplateExpression? More = null, TemplateExpression? MoreNamed = null)
{
    public static ArgumentExpressions None { get; } = new([], []);

    public TemplateArguments Evaluate(TemplateRun run, int line)
    {
        List<object?> positional = [.. Positional.Select(run.Value)];
        Dictionary<string, object?> named = Named.ToDictionary(static argument => argument.Name, argument => run.Value(argument.Value), StringComparer.Ordinal);
        if (More is not null)
        {
            object? more = run.Value(More);
            positional.AddRange(TemplateValues.Iterate(more) ?? throw TemplateError.Failed(line, $"{TemplateValues.Kind(more)} has no items"));
        }

        if (MoreNamed is not null)
        {
            TemplateMap more = run.Value(MoreNamed) as TemplateMap ?? throw TemplateError.Failed(line, "arguments by name are a dictionary");
            foreach ((object? name, object? value) in more)
            {
                if (name is not string text || !named.TryAdd(text, value))
                {
                    throw TemplateError.Failed(line, "the name of an argument is not a text, or is given twice");
                }
            }
        }

        return new(positional, named);
    }
}

/// <summary>A call of a function, a macro or a method.</summary>
internal sealed record CallExpression(int Line, TemplateExpression Target, ArgumentExpressions Arguments) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => Call(run, caller: null);

    /// <summary>Calls it with what a <c>call</c> block holds.</summary>
    public object? Call(TemplateRun run, TemplateFunction? caller)
    {
        object? target = run.Value(Target);
        if (target is not TemplateFunction function)
        {
            if (Target is AttributeExpression { Target: not NameExpression } method && !TemplateMethods.IsKnown(method.Name))
            {
                throw TemplateError.Unsupported(Line, $"the method '{method.Name}'");
            }

            throw TemplateError.Failed(Line, target is TemplateUndefined missing ? $"'{missing.Name}' is not defined, so it cannot be called"
                : $"{(Target is NameExpression name ? $"'{name.Name}'" : TemplateValues.Kind(target))} cannot be called");
        }

        TemplateArguments arguments = Arguments.Evaluate(run, Line);
        return function(run, Line, caller is null ? arguments : arguments with { Named = new Dictionary<string, object?>(arguments.Named, StringComparer.Ordinal) { [MacroBody.Caller] = caller } });
    }
}

internal sealed record FilterExpression(int Line, TemplateExpression Target, string Name, ArgumentExpressions Arguments) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateFilters.All.TryGetValue(Name, out TemplateOperation? filter)
        ? filter.Call(run, Line, Name, run.Value(Target), Arguments.Evaluate(run, Line))
        : throw TemplateError.Unsupported(Line, $"the filter '{Name}'");
}

internal sealed record TestExpression(int Line, TemplateExpression Target, string Name, ArgumentExpressions Arguments, bool IsNegated) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateTests.All.TryGetValue(Name, out TemplateOperation? test)
        ? TemplateValues.IsTrue(test.Call(run, Line, Name, run.Value(Target), Arguments.Evaluate(run, Line))) != IsNegated
        : throw TemplateError.Unsupported(Line, $"the test '{Name}'");
}

/// <summary><c>a if condition else b</c>.</summary>
internal sealed record ConditionExpression(int Line, TemplateExpression Condition, TemplateExpression Then, TemplateExpression? Otherwise) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateValues.IsTrue(run.Value(Condition)) ? run.Value(Then)
        : Otherwise is null ? new TemplateUndefined("the value without else")
        : run.Value(Otherwise);
}

/// <summary><c>and</c>, <c>or</c>: the value that decides.</summary>
internal sealed record LogicExpression(int Line, TemplateExpression Left, TemplateExpression Right, bool IsAnd) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? left = run.Value(Left);
        return TemplateValues.IsTrue(left) == IsAnd ? run.Value(Right) : left;
    }
}

internal sealed record NotExpression(int Line, TemplateExpression Target) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => !TemplateValues.IsTrue(run.Value(Target));
}

/// <summary><c>-a</c> and <c>+a</c>.</summary>
internal sealed record SignExpression(int Line, TemplateExpression Target, bool IsNegative) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? value = run.Value(Target);
        return (IsNegative ? PythonNumbers.Negative(value) : PythonNumbers.Calculate(Line, "+", value, 0L)) ?? throw TemplateError.Failed(Line, $"{TemplateValues.Kind(value)} has no sign");
    }
}

/// <summary>Comparisons in a row: <c>a &lt; b == c</c> holds where each holds.</summary>
internal sealed record CompareExpression(int Line, TemplateExpression First, IReadOnlyList<(string Operator, TemplateExpression Right)> Rest) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? left = run.Value(First);
        foreach ((string comparison, TemplateExpression expression) in Rest)
        {
            object? right = run.Value(expression);
            if (!Holds(Line, comparison, left, right))
            {
                return false;
            }

            left = right;
        }

        return true;
    }

    /// <summary>Whether one comparison holds.</summary>
    public static bool Holds(int line, string comparison, object? left, object? right) => comparison switch
    {
        "==" => TemplateValues.AreEqual(left, right),
        "!=" => !TemplateValues.AreEqual(left, right),
        "in" => TemplateLibrary.Contains(line, right, left),
        "not in" => !TemplateLibrary.Contains(line, right, left),
        _ => (TemplateValues.Compare(left, right), comparison) switch
        {
            (null, _) => throw TemplateError.Failed(line, $"{TemplateValues.Kind(left)} and {TemplateValues.Kind(right)} have no order"),
            (PythonNumbers.Unordered, _) => false,
            (int order, ">") => order > 0,
            (int order, ">=") => order >= 0,
            (int order, "<") => order < 0,
            (int order, _) => order <= 0,
        },
    };
}

/// <summary>Arithmetic, the joining of texts and lists, and texts with values in their places.</summary>
internal sealed record MathExpression(int Line, string Operator, TemplateExpression Left, TemplateExpression Right) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => Calculate(run, Line, Operator, run.Value(Left), run.Value(Right));

    /// <summary>The result of an operator.</summary>
    public static object? Calculate(TemplateRun run, int line, string sign, object? left, object? right) => (sign, left, right) switch
    {
        ("~", _, _) => run.Checked(line, TemplateValues.Text(line, left) + TemplateValues.Text(line, right)),
        ("+", TemplateMarkup a, TemplateMarkup b) => new TemplateMarkup(run.Checked(line, a.Text + b.Text)),
        ("+", TemplateMarkup a, string b) => new TemplateMarkup(run.Checked(line, a.Text + TemplateMarkup.Escape(b))),
        ("+", string a, TemplateMarkup b) => new TemplateMarkup(run.Checked(line, TemplateMarkup.Escape(a) + b.Text)),
        ("+" or "*" or "%", TemplateMarkup, _) or ("+" or "*" or "%", _, TemplateMarkup) => throw TemplateError.Unsupported(line, $"'{sign}' of a text that 'safe' marks"),
        ("+", string a, string b) => run.Checked(line, a + b),
        ("+", TemplateList a, TemplateList b) when a.IsTuple == b.IsTuple => Repeated(run, line, a, 1, b),
        ("%", string format, TemplateList { IsTuple: true } values) => PythonFormat.Percent(run, line, format, new(values, TemplateArguments.None.Named)),
        ("%", string format, TemplateMap values) => PythonFormat.Percent(run, line, format, Named(values), takesMore: true),
        ("%", string format, _) => PythonFormat.Percent(run, line, format, new([right], TemplateArguments.None.Named), takesMore: right is TemplateList or TemplateRange or TemplateUndefined),
        ("*", string text, _) when TemplateValues.Integer(right) is long count => run.Repeat(line, text, count),
        ("*", _, string text) when TemplateValues.Integer(left) is long count => run.Repeat(line, text, count),
        ("*", TemplateList list, _) when TemplateValues.Integer(right) is long count => Repeated(run, line, list, count, []),
        ("*", _, TemplateList list) when TemplateValues.Integer(left) is long count => Repeated(run, line, list, count, []),
        _ => PythonNumbers.Calculate(line, sign, left, right)
            ?? throw TemplateError.Failed(line, $"'{sign}' is not defined for {TemplateValues.Kind(left)} and {TemplateValues.Kind(right)}"),
    };

    private static TemplateList Repeated(TemplateRun run, int line, TemplateList list, long count, TemplateList more)
    {
        run.Steps(line, ((double)list.Count * Math.Max(count, 0)) + more.Count);
        TemplateList repeated = new() { IsTuple = list.IsTuple };
        for (long i = 0; i < (list.Count == 0 ? 0 : count); i++)
        {
            repeated.AddRange(list);
        }

        repeated.AddRange(more);
        return repeated;
    }

    // A dictionary stands for its members, or is the one value.
    private static TemplateArguments Named(TemplateMap values) =>
        new([values], values.Where(static member => member.Key is string).ToDictionary(static member => (string)member.Key!, static member => member.Value, StringComparer.Ordinal));
}

/// <summary>A statement of a template.</summary>
/// <param name="Line">Its line, for errors.</param>
internal abstract record TemplateStatement(int Line)
{
    /// <summary>Runs it; what it returns ends the loop around it, or its turn.</summary>
    public abstract TemplateFlow Run(TemplateRun run);
}

/// <summary>Statements with variables of their own.</summary>
/// <param name="Statements">The statements.</param>
/// <param name="Late">Names that it sets only after an inner block has read them: until then they are not there, whatever is around it.</param>
internal sealed record TemplateBlock(IReadOnlyList<TemplateStatement> Statements, IReadOnlyList<string> Late);

/// <summary>How a statement ends.</summary>
internal enum TemplateFlow
{
    Next,
    Break,
    Continue,
}

internal sealed record TextStatement(int Line, string Text) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        run.Write(Line, Text);
        return TemplateFlow.Next;
    }
}

internal sealed record OutputStatement(int Line, TemplateExpression Value) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        run.Write(Line, TemplateValues.Text(Line, run.Value(Value)));
        return TemplateFlow.Next;
    }
}

internal sealed record IfStatement(int Line, IReadOnlyList<(TemplateExpression? Condition, IReadOnlyList<TemplateStatement> Body)> Branches) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        foreach ((TemplateExpression? condition, IReadOnlyList<TemplateStatement> body) in Branches)
        {
            if (condition is null || TemplateValues.IsTrue(run.Value(condition)))
            {
                return run.Run(body);
            }
        }

        return TemplateFlow.Next;
    }
}

/// <summary>Target of an assignment.</summary>
internal abstract record TemplateTarget
{
    /// <summary>The variables that are set.</summary>
    public abstract IEnumerable<string> Names { get; }

    /// <summary>Assigns a value.</summary>
    public abstract void Assign(TemplateRun run, int line, object? value);
}

/// <summary>A variable.</summary>
internal sealed record NameTarget(string Name) : TemplateTarget
{
    public override IEnumerable<string> Names => [Name];

    public override void Assign(TemplateRun run, int line, object? value) => run.Set(Name, value);
}

/// <summary>A member of a namespace.</summary>
internal sealed record MemberTarget(string Space, string Name) : TemplateTarget
{
    public override IEnumerable<string> Names => [];

    public override void Assign(TemplateRun run, int line, object? value)
    {
        TemplateNamespace space = run.Get(Space) as TemplateNamespace ?? throw TemplateError.Failed(line, $"'{Space}' is not a namespace, so '{Name}' cannot be set");
        space.Members[Name] = value;
    }
}

/// <summary>Several, each of which takes an item.</summary>
internal sealed record SeveralTargets(IReadOnlyList<TemplateTarget> Targets) : TemplateTarget
{
    public override IEnumerable<string> Names => Targets.SelectMany(static target => target.Names);

    public override void Assign(TemplateRun run, int line, object? value)
    {
        IEnumerable<object?> source = TemplateValues.Iterate(value) ?? throw TemplateError.Failed(line, $"{TemplateValues.Kind(value)} has no items");
        object?[] items = [.. source.Take(Targets.Count + 1)];
        if (items.Length != Targets.Count)
        {
            throw TemplateError.Failed(line, $"{TemplateValues.Kind(value)} does not have {Targets.Count} items");
        }

        foreach ((TemplateTarget target, object? item) in Targets.Zip(items))
        {
            target.Assign(run, line, item);
        }
    }
}

/// <summary><c>set name = value</c>, <c>set a, b = value</c> and <c>set space.name = value</c>.</summary>
internal sealed record SetStatement(int Line, TemplateTarget Target, TemplateExpression Value) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        Target.Assign(run, Line, run.Value(Value));
        return TemplateFlow.Next;
    }
}

/// <summary><c>set name</c> … <c>endset</c>, with filters for the text.</summary>
internal sealed record SetBlockStatement(int Line, TemplateTarget Target, FiltersExpression? Filters, TemplateBlock Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        (string text, TemplateFlow flow) = run.Capture(Body);
        if (flow is TemplateFlow.Next)
        {
            Target.Assign(run, Line, Filters is null ? text : Filters.Apply(run, text));
        }

        return flow;
    }
}

/// <summary><c>filter name</c> … <c>endfilter</c>.</summary>
internal sealed record FilterStatement(int Line, FiltersExpression Filters, TemplateBlock Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        (string text, TemplateFlow flow) = run.Capture(Body);
        if (flow is TemplateFlow.Next)
        {
            object? filtered = Filters.Apply(run, text);
            run.Write(Line, TemplateValues.PlainText(filtered) ?? throw TemplateError.Failed(Line, $"the filters of a block give {TemplateValues.Kind(filtered)}, not a text"));
        }

        return flow;
    }
}

/// <summary>Filters of a block, whose text is put in front.</summary>
internal sealed record FiltersExpression(HeldExpression Text, TemplateExpression Filtered)
{
    public object? Apply(TemplateRun run, string text)
    {
        using (run.Hold(text))
        {
            return run.Value(Filtered);
        }
    }
}

/// <summary>The text of a block that is filtered.</summary>
internal sealed record HeldExpression(int Line) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => run.Held;
}

/// <summary><c>with a = value</c> … <c>endwith</c>.</summary>
internal sealed record WithStatement(int Line, IReadOnlyList<(TemplateTarget Target, TemplateExpression Value)> Variables, TemplateBlock Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        object?[] values = [.. Variables.Select(variable => run.Value(variable.Value))];
        using (run.Scope(Body))
        {
            foreach (((TemplateTarget target, _), object? value) in Variables.Zip(values))
            {
                target.Assign(run, Line, value);
            }

            return run.Run(Body.Statements);
        }
    }
}

internal sealed record ForStatement(
    int Line, TemplateTarget Target, TemplateExpression Items, TemplateExpression? Condition, TemplateBlock Body,
    TemplateBlock Otherwise) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        object? value = run.Value(Items);
        IEnumerable<object?> items = TemplateValues.Iterate(value) ?? throw TemplateError.Failed(Line, $"{TemplateValues.Kind(value)} has no items");
        TemplateLoop loop = Condition is null ? new(Line, items, TemplateValues.Length(value)) : new(Line, items.Where(item => Holds(run, Condition, item)), length: null);
        while (loop.Next())
        {
            run.Step(Line);
            using (run.Scope(Body))
            {
                run.Set("loop", loop);
                Target.Assign(run, Line, loop.Current);
                if (run.Run(Body.Statements) == TemplateFlow.Break)
                {
                    break;
                }
            }
        }

        if (loop.IsEmpty)
        {
            using (run.Scope(Otherwise))
            {
                return run.Run(Otherwise.Statements);
            }
        }

        return TemplateFlow.Next;
    }

    private bool Holds(TemplateRun run, TemplateExpression condition, object? item)
    {
        using (run.Scope())
        {
            Target.Assign(run, Line, item);
            return TemplateValues.IsTrue(run.Value(condition));
        }
    }
}

internal sealed record FlowStatement(int Line, TemplateFlow Flow) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run) => Flow;
}

/// <summary>Parameters and statements of a macro, or of a <c>call</c> block.</summary>
/// <param name="Name">Its name, for errors.</param>
/// <param name="Parameters">The parameters with their default values.</param>
/// <param name="Body">The statements.</param>
/// <param name="Uses">Which of the names that stand for further arguments it reads: <c>varargs</c>, <c>kwargs</c>, <c>caller</c>.</param>
internal sealed record MacroBody(
    string Name, IReadOnlyList<(string Name, TemplateExpression? Default)> Parameters, TemplateBlock Body, IReadOnlySet<string> Uses)
{
    public const string Caller = "caller";
    public const string MoreByPlace = "varargs";
    public const string MoreByName = "kwargs";

    /// <summary>The function of it, which sees the variables of the place where it is made.</summary>
    public TemplateFunction Bind(TemplateRun run)
    {
        TemplateScope scope = run.Current;
        return (_, line, arguments) => Call(run, scope, line, arguments);
    }

    private string Call(TemplateRun run, TemplateScope scope, int line, TemplateArguments arguments)
    {
        Dictionary<string, object?> named = new(arguments.Named, StringComparer.Ordinal);
        using (run.MacroScope(line, scope))
        {
            for (int i = 0; i < Parameters.Count; i++)
            {
                (string name, TemplateExpression? otherwise) = Parameters[i];
                run.Set(name, i < arguments.Positional.Count ? arguments.Positional[i]
                    : named.Remove(name, out object? value) ? value
                    : otherwise is null ? new TemplateUndefined(name)
                    : run.Value(otherwise));
            }

            if (Uses.Contains(Caller) && Parameters.All(static parameter => parameter.Name != Caller))
            {
                run.Set(Caller, named.Remove(Caller, out object? caller) ? caller : new TemplateUndefined(Caller));
            }

            if (Uses.Contains(MoreByName))
            {
                TemplateMap more = new();
                foreach ((string name, object? value) in named)
                {
                    more[name] = value;
                }

                run.Set(MoreByName, more);
                named.Clear();
            }

            if (Uses.Contains(MoreByPlace))
            {
                run.Set(MoreByPlace, TemplateList.Tuple(arguments.Positional.Skip(Parameters.Count)));
            }
            else if (arguments.Positional.Count > Parameters.Count)
            {
                throw TemplateError.Failed(line, $"the macro '{Name}' takes {Parameters.Count} arguments at most");
            }

            return named.Count == 0 ? run.Capture(Body).Text : throw TemplateError.Failed(line, $"the macro '{Name}' takes no argument '{named.Keys.First()}' here");
        }
    }
}

internal sealed record MacroStatement(int Line, MacroBody Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        run.Set(Body.Name, Body.Bind(run));
        return TemplateFlow.Next;
    }
}

/// <summary><c>call macro(…)</c> … <c>endcall</c>: the macro gets what stands between as <c>caller</c>.</summary>
internal sealed record CallStatement(int Line, CallExpression Called, MacroBody Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        object? called = Called.Call(run, Body.Bind(run));
        run.Write(Line, TemplateValues.PlainText(called) ?? throw TemplateError.Failed(Line, $"what is called gives {TemplateValues.Kind(called)}, not a text"));
        return TemplateFlow.Next;
    }
}

/// <summary><c>generation</c> … <c>endgeneration</c>: what the assistant says.</summary>
internal sealed record GenerationStatement(int Line, TemplateBlock Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        using (run.Generation())
        using (run.Scope(Body))
        {
            return run.Run(Body.Statements);
        }
    }
}
