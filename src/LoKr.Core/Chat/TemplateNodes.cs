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

internal sealed record ListExpression(int Line, IReadOnlyList<TemplateExpression> Items) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => new TemplateList(Items.Select(run.Value));
}

internal sealed record MapExpression(int Line, IReadOnlyList<(TemplateExpression Key, TemplateExpression Value)> Members) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        TemplateMap map = new();
        foreach ((TemplateExpression key, TemplateExpression value) in Members)
        {
            map[run.Value(key) as string ?? throw TemplateError.Unsupported(Line, "a dictionary key that is not a text")] = run.Value(value);
        }

        return map;
    }
}

/// <summary><c>a.name</c>.</summary>
internal sealed record AttributeExpression(int Line, TemplateExpression Target, string Name) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateRun.Attribute(Line, run.Value(Target), Name);
}

/// <summary><c>a[index]</c>.</summary>
internal sealed record IndexExpression(int Line, TemplateExpression Target, TemplateExpression Index) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? target = run.Value(Target);
        object? index = run.Value(Index);
        if (target is TemplateUndefined missing)
        {
            throw TemplateError.Failed(Line, $"'{missing.Name}' is not defined");
        }

        if (index is string name && target is TemplateMap or TemplateNamespace)
        {
            return TemplateRun.Attribute(Line, target, name);
        }

        if (TemplateValues.Integer(index) is long at && target is TemplateList or string)
        {
            IReadOnlyList<object?> items = TemplateValues.Items(target)!;
            at = at < 0 ? at + items.Count : at;
            return at >= 0 && at < items.Count ? items[(int)at] : new TemplateUndefined($"item {at}");
        }

        return new TemplateUndefined(TemplateValues.Text(index));
    }
}

/// <summary><c>a[start:stop:step]</c>.</summary>
internal sealed record SliceExpression(
    int Line, TemplateExpression Target, TemplateExpression? Start, TemplateExpression? Stop, TemplateExpression? Step) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? target = run.Value(Target);
        long step = Bound(Step) ?? 1;
        if (step == 0 || target is not (string or TemplateList))
        {
            throw TemplateError.Failed(Line, $"{TemplateLibrary.Kind(target)} cannot be cut so");
        }

        IEnumerable<object?> items = TemplateValues.Slice(TemplateValues.Items(target)!, Bound(Start), Bound(Stop), step);
        return target is string ? string.Concat(items) : new TemplateList(items);

        long? Bound(TemplateExpression? expression) => expression is null || run.Value(expression) is not object value
            ? null
            : TemplateValues.Integer(value) ?? throw TemplateError.Failed(Line, "a slice needs whole numbers");
    }
}

/// <summary>Arguments as they are written.</summary>
/// <param name="Positional">Those by place.</param>
/// <param name="Named">Those by name.</param>
internal sealed record ArgumentExpressions(IReadOnlyList<TemplateExpression> Positional, IReadOnlyList<(string Name, TemplateExpression Value)> Named)
{
    public static ArgumentExpressions None { get; } = new([], []);

    public TemplateArguments Evaluate(TemplateRun run) => new([.. Positional.Select(run.Value)], Named.ToDictionary(argument => argument.Name, argument => run.Value(argument.Value)));
}

/// <summary>A call of a function or a macro.</summary>
internal sealed record CallExpression(int Line, TemplateExpression Target, ArgumentExpressions Arguments) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => run.Value(Target) is TemplateFunction function
        ? function(run, Line, Arguments.Evaluate(run))
        : throw TemplateError.Failed(Line, $"{(Target is NameExpression name ? $"'{name.Name}'" : "a value")} cannot be called");
}

/// <summary>A call of a method of a text or a dictionary.</summary>
internal sealed record MethodExpression(int Line, TemplateExpression Target, string Name, ArgumentExpressions Arguments) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        object? target = run.Value(Target);
        return target is TemplateUndefined missing
            ? throw TemplateError.Failed(Line, $"'{missing.Name}' is not defined")
            : TemplateLibrary.Methods[Name](run, Line, target, Arguments.Evaluate(run));
    }
}

internal sealed record FilterExpression(int Line, TemplateExpression Target, string Name, ArgumentExpressions Arguments) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateLibrary.Filters[Name](run, Line, run.Value(Target), Arguments.Evaluate(run));
}

internal sealed record TestExpression(int Line, TemplateExpression Target, string Name, ArgumentExpressions Arguments, bool IsNegated) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => TemplateLibrary.Tests[Name](run.Value(Target), Arguments.Evaluate(run)) != IsNegated;
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

internal sealed record NegativeExpression(int Line, TemplateExpression Target) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run) => run.Value(Target) switch
    {
        double number => (object)-number,
        object value when TemplateValues.Integer(value) is long number => -number,
        var value => throw TemplateError.Failed(Line, $"{TemplateLibrary.Kind(value)} has no negative"),
    };
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
            bool holds = comparison switch
            {
                "==" => TemplateValues.AreEqual(left, right),
                "!=" => !TemplateValues.AreEqual(left, right),
                "in" => TemplateRun.Contains(Line, right, left),
                "not in" => !TemplateRun.Contains(Line, right, left),
                _ => (TemplateValues.Compare(left, right), comparison) switch
                {
                    (null, _) => throw TemplateError.Failed(Line, $"{TemplateLibrary.Kind(left)} and {TemplateLibrary.Kind(right)} have no order"),
                    (int order, ">") => order > 0,
                    (int order, ">=") => order >= 0,
                    (int order, "<") => order < 0,
                    (int order, _) => order <= 0,
                },
            };
            if (!holds)
            {
                return false;
            }

            left = right;
        }

        return true;
    }
}

/// <summary>Arithmetic, and the joining of texts and lists.</summary>
internal sealed record MathExpression(int Line, string Operator, TemplateExpression Left, TemplateExpression Right) : TemplateExpression(Line)
{
    public override object? Evaluate(TemplateRun run)
    {
        (object? left, object? right) = (run.Value(Left), run.Value(Right));
        if (Operator == "~")
        {
            return run.Checked(Line, TemplateValues.Text(left) + TemplateValues.Text(right));
        }

        return (Operator, left, right) switch
        {
            ("+", string a, string b) => run.Checked(Line, a + b),
            ("+", TemplateList a, TemplateList b) => new TemplateList(a.Concat(b)),
            ("*", string a, _) when TemplateValues.Integer(right) is long count => run.Repeat(Line, a, count),
            _ when TemplateValues.Integer(left) is long a && TemplateValues.Integer(right) is long b => Integers(a, b),
            _ when TemplateValues.Number(left) is double a && TemplateValues.Number(right) is double b => Numbers(a, b),
            _ => throw TemplateError.Failed(Line, $"'{Operator}' is not defined for {TemplateLibrary.Kind(left)} and {TemplateLibrary.Kind(right)}"),
        };
    }

    private object Integers(long a, long b) => Operator switch
    {
        "+" => (object)unchecked(a + b),
        "-" => unchecked(a - b),
        "*" => unchecked(a * b),
        "/" => (double)a / NotZero(b),
        "//" => (long)Math.Floor((double)a / NotZero(b)),
        _ => ((a % NotZero(b)) + b) % b,
    };

    private double Numbers(double a, double b) => Operator switch
    {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" when b != 0 => a / b,
        "//" when b != 0 => Math.Floor(a / b),
        _ when b != 0 => a - (b * Math.Floor(a / b)),
        _ => throw TemplateError.Failed(Line, "a number is divided by 0"),
    };

    private long NotZero(long value) => value != 0 ? value : throw TemplateError.Failed(Line, "a number is divided by 0");
}

/// <summary>A statement of a template.</summary>
/// <param name="Line">Its line, for errors.</param>
internal abstract record TemplateStatement(int Line)
{
    /// <summary>Runs it; what it returns ends the loop around it, or its turn.</summary>
    public abstract TemplateFlow Run(TemplateRun run);
}

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
        run.Write(Line, TemplateValues.Text(run.Value(Value)));
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

/// <summary><c>set name = value</c>, <c>set a, b = value</c> and <c>set space.name = value</c>.</summary>
internal sealed record SetStatement(int Line, IReadOnlyList<string> Names, string? Member, TemplateExpression Value) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        object? value = run.Value(Value);
        if (Member is null)
        {
            run.Unpack(Line, Names, value);
        }
        else if (run.Get(Names[0]) is TemplateNamespace space)
        {
            space.Members[Member] = value;
        }
        else
        {
            throw TemplateError.Failed(Line, $"'{Names[0]}' is no namespace, so '{Member}' cannot be set");
        }

        return TemplateFlow.Next;
    }
}

/// <summary><c>set name</c> … <c>endset</c>.</summary>
internal sealed record SetBlockStatement(int Line, string Name, IReadOnlyList<TemplateStatement> Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        run.Set(Name, run.Capture(Body));
        return TemplateFlow.Next;
    }
}

internal sealed record ForStatement(
    int Line, IReadOnlyList<string> Names, TemplateExpression Items, TemplateExpression? Condition, IReadOnlyList<TemplateStatement> Body,
    IReadOnlyList<TemplateStatement> Otherwise) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        object? value = run.Value(Items);
        IReadOnlyList<object?> items = TemplateValues.Items(value) ?? throw TemplateError.Failed(Line, $"{TemplateLibrary.Kind(value)} has no items");
        if (Condition is not null)
        {
            List<object?> kept = [];
            foreach (object? item in items)
            {
                using (run.Scope())
                {
                    run.Unpack(Line, Names, item);
                    if (TemplateValues.IsTrue(run.Value(Condition)))
                    {
                        kept.Add(item);
                    }
                }
            }

            items = kept;
        }

        for (int i = 0; i < items.Count; i++)
        {
            using (run.Scope())
            {
                run.Set("loop", Loop(items, i));
                run.Unpack(Line, Names, items[i]);
                if (run.Run(Body) == TemplateFlow.Break)
                {
                    break;
                }
            }
        }

        if (items.Count == 0)
        {
            using (run.Scope())
            {
                return run.Run(Otherwise);
            }
        }

        return TemplateFlow.Next;
    }

    private static TemplateMap Loop(IReadOnlyList<object?> items, int index) => new()
    {
        ["index"] = (long)index + 1,
        ["index0"] = (long)index,
        ["revindex"] = (long)items.Count - index,
        ["revindex0"] = (long)items.Count - index - 1,
        ["first"] = index == 0,
        ["last"] = index == items.Count - 1,
        ["length"] = (long)items.Count,
        ["previtem"] = index > 0 ? items[index - 1] : new TemplateUndefined("previtem"),
        ["nextitem"] = index < items.Count - 1 ? items[index + 1] : new TemplateUndefined("nextitem"),
    };
}

internal sealed record FlowStatement(int Line, TemplateFlow Flow) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run) => Flow;
}

internal sealed record MacroStatement(
    int Line, string Name, IReadOnlyList<(string Name, TemplateExpression? Default)> Parameters, IReadOnlyList<TemplateStatement> Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        TemplateFunction macro = Call;
        run.Set(Name, macro);
        return TemplateFlow.Next;
    }

    private object? Call(TemplateRun run, int line, TemplateArguments arguments)
    {
        if (arguments.Positional.Count > Parameters.Count || arguments.Named.Keys.Any(name => Parameters.All(parameter => parameter.Name != name)))
        {
            throw TemplateError.Failed(line, $"the macro '{Name}' does not take these arguments");
        }

        using (run.MacroScope(line))
        {
            for (int i = 0; i < Parameters.Count; i++)
            {
                (string name, TemplateExpression? otherwise) = Parameters[i];
                run.Set(name, i < arguments.Positional.Count ? arguments.Positional[i]
                    : arguments.Named.TryGetValue(name, out object? value) ? value
                    : otherwise is null ? new TemplateUndefined(name)
                    : run.Value(otherwise));
            }

            return run.Capture(Body);
        }
    }
}

/// <summary><c>generation</c> … <c>endgeneration</c>: what the assistant says.</summary>
internal sealed record GenerationStatement(int Line, IReadOnlyList<TemplateStatement> Body) : TemplateStatement(Line)
{
    public override TemplateFlow Run(TemplateRun run)
    {
        using (run.Generation())
        {
            return run.Run(Body);
        }
    }
}
