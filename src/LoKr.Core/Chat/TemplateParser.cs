using System.Globalization;

namespace LoKr.Core.Chat;

/// <summary>
/// Reads the part of Jinja that chat templates use. Everything else is refused with its line, before anything is rendered, because a template
/// that is nearly right gives wrong texts silently.
/// </summary>
internal sealed class TemplateParser
{
    private const int DeepestNesting = 100;

    private static readonly string[] s_comparisons = ["==", "!=", ">", ">=", "<", "<="];

    // Names that a macro gets without parameters, where it reads them.
    private static readonly string[] s_macroNames = [MacroBody.Caller, MacroBody.MoreByName, MacroBody.MoreByPlace];

    private readonly List<TemplateToken> _tokens;
    private HashSet<string> _uses = [];
    private Names _names = new(outer: null);
    private int _conditions;
    private int _at;
    private int _depth;
    private int _loops;

    private TemplateParser(string source) => _tokens = TemplateLexer.Read(source);

    /// <summary>Whether the template marks what the assistant says.</summary>
    public bool HasGeneration { get; private set; }

    /// <summary>Whether the template may write the date.</summary>
    public bool HasDate => _tokens.Any(static token => token is { Kind: TemplateTokenKind.Name, Text: "strftime_now" });

    private TemplateToken Current => _tokens[_at];

    private int Line => Current.Line;

    public static (TemplateBlock Body, bool HasGeneration, bool HasDate) Parse(string source)
    {
        TemplateParser parser = new(source);
        TemplateBlock body = parser.Block();
        parser._names.Settle();
        return parser.Current.Kind == TemplateTokenKind.End
            ? (body, parser.HasGeneration, parser.HasDate)
            : throw TemplateError.Invalid(parser.Line, $"'{parser._tokens[parser._at + 1].Text}' is not expected");
    }

    /// <summary>Statements with variables of their own.</summary>
    private TemplateBlock Block(params IEnumerable<string> given)
    {
        (Names outer, int conditions) = (_names, _conditions);
        (_names, _conditions) = (new(outer), 0);
        foreach (string name in given)
        {
            _names.Known.Add(name);
        }

        TemplateBlock block = new(Body(), _names.Late);
        (_names, _conditions) = (outer, conditions);
        return block;
    }

    /// <summary>Statements up to a tag that ends or divides the one around them, which is not read, or to the end.</summary>
    private List<TemplateStatement> Body()
    {
        Deeper();
        List<TemplateStatement> body = [];
        while (Current.Kind != TemplateTokenKind.End)
        {
            int line = Line;
            switch (Current.Kind)
            {
                case TemplateTokenKind.Data:
                    body.Add(new TextStatement(line, Take().Text));
                    break;
                case TemplateTokenKind.VariableBegin:
                    _at++;
                    body.Add(new OutputStatement(line, Tuple()));
                    Expect(TemplateTokenKind.VariableEnd);
                    break;
                default:
                    if (_tokens[_at + 1].Text.StartsWith("end", StringComparison.Ordinal) || _tokens[_at + 1].Text is "else" or "elif")
                    {
                        _depth--;
                        return body;
                    }

                    _at++;
                    body.Add(Statement(line));
                    break;
            }
        }

        _depth--;
        return body;
    }

    private void Deeper()
    {
        if (++_depth > DeepestNesting)
        {
            throw TemplateError.Limit(Line, "its parts are nested too deep");
        }
    }

    private TemplateStatement Statement(int line)
    {
        string name = Name();
        switch (name)
        {
            case "if":
                return If(line);
            case "for":
                return For(line);
            case "set":
                return Set(line);
            case "macro":
                return Macro(line);
            case "call":
                return CallBlock(line);
            case "filter":
                HeldExpression filtered = new(line);
                FiltersExpression filters = new(filtered, Filters(Filter(line, filtered)));
                Expect(TemplateTokenKind.BlockEnd);
                TemplateBlock text = Block();
                End("endfilter");
                return new FilterStatement(line, filters, text);
            case "with":
                return With(line);
            case "generation":
                HasGeneration = true;
                Expect(TemplateTokenKind.BlockEnd);
                TemplateBlock said = Function([], out _);
                End("endgeneration");
                return new GenerationStatement(line, said);
            case "break" or "continue" when _loops > 0:
                Expect(TemplateTokenKind.BlockEnd);
                return new FlowStatement(line, name == "break" ? TemplateFlow.Break : TemplateFlow.Continue);
            default:
                throw TemplateError.Unsupported(line, $"the tag '{name}'");
        }
    }

    private IfStatement If(int line)
    {
        List<(TemplateExpression?, IReadOnlyList<TemplateStatement>)> branches = [];
        TemplateExpression? condition = Tuple();
        while (true)
        {
            Expect(TemplateTokenKind.BlockEnd);
            _conditions++;
            branches.Add((condition, Body()));
            _conditions--;
            Expect(TemplateTokenKind.BlockBegin);
            string next = Name();
            if (next == "endif")
            {
                Expect(TemplateTokenKind.BlockEnd);
                return new(line, branches);
            }

            condition = next switch
            {
                "elif" when condition is not null => Tuple(),
                "else" when condition is not null => null,
                _ => throw TemplateError.Invalid(line, $"'if' is followed by '{next}'"),
            };
        }
    }

    private ForStatement For(int line)
    {
        TemplateTarget target = Targets(withMembers: false);
        Require("in");
        TemplateExpression items = Tuple(withCondition: false);
        (Names outer, _names) = (_names, new(_names));
        foreach (string name in target.Names)
        {
            _names.Known.Add(name);
        }

        TemplateExpression? condition = Skip("if") ? Expression() : null;
        _names = outer;
        if (Current.Is("recursive"))
        {
            throw TemplateError.Unsupported(line, "'recursive' of a loop");
        }

        Expect(TemplateTokenKind.BlockEnd);
        _loops++;
        TemplateBlock body = Block(["loop", .. target.Names]);
        _loops--;
        TemplateBlock otherwise = new([], []);
        if (_tokens[_at + 1].Is("else"))
        {
            End("else");
            otherwise = Block();
        }

        End("endfor");
        return new(line, target, items, condition, body, otherwise);
    }

    private TemplateStatement Set(int line)
    {
        TemplateTarget target = Targets(withMembers: true);
        if (Skip("="))
        {
            TemplateExpression value = Tuple();
            Set(target);
            Expect(TemplateTokenKind.BlockEnd);
            return new SetStatement(line, target, value);
        }

        FiltersExpression? filters = null;
        if (Current.Is("|"))
        {
            HeldExpression text = new(line);
            filters = new(text, Filters(text));
        }

        if (target is SeveralTargets)
        {
            throw TemplateError.Invalid(line, "'set' has no value");
        }

        Set(target);
        Expect(TemplateTokenKind.BlockEnd);
        TemplateBlock body = Block();
        End("endset");
        return new SetBlockStatement(line, target, filters, body);
    }

    private void Set(TemplateTarget target)
    {
        foreach (string name in target.Names)
        {
            _names.Set(name, isAlways: _conditions == 0);
        }
    }

    private WithStatement With(int line)
    {
        List<(TemplateTarget, TemplateExpression)> variables = [];
        while (Current.Kind != TemplateTokenKind.BlockEnd)
        {
            if (variables.Count > 0)
            {
                Require(",");
            }

            // A name, or several in brackets: a comma begins the next variable.
            TemplateTarget target = Targets(withMembers: false, several: false);
            Require("=");
            variables.Add((target, Expression()));
        }

        Expect(TemplateTokenKind.BlockEnd);
        TemplateBlock body = Block(variables.SelectMany(static variable => variable.Item1.Names));
        End("endwith");
        return new(line, variables, body);
    }

    private CallStatement CallBlock(int line)
    {
        List<(string, TemplateExpression?)> parameters = Skip("(") ? Parameters() : [];
        CallExpression called = Expression() as CallExpression ?? throw TemplateError.Invalid(line, "'call' is followed by a call");
        Expect(TemplateTokenKind.BlockEnd);
        TemplateBlock body = Function(parameters, out IReadOnlySet<string> uses);
        End("endcall");
        return new(line, called, new(MacroBody.Caller, parameters, body, uses));
    }

    private MacroStatement Macro(int line)
    {
        string name = Name();
        _names.Set(name, isAlways: _conditions == 0);
        Require("(");
        List<(string, TemplateExpression?)> parameters = Parameters();
        Expect(TemplateTokenKind.BlockEnd);
        TemplateBlock body = Function(parameters, out IReadOnlySet<string> uses);
        End("endmacro");
        return new(line, new(name, parameters, body, uses));
    }

    private List<(string Name, TemplateExpression? Default)> Parameters()
    {
        List<(string, TemplateExpression?)> parameters = [];
        while (!Skip(")"))
        {
            string parameter = Name();
            TemplateExpression? otherwise = Skip("=") ? Expression() : null;
            if (otherwise is null && parameters is [.., (_, not null)])
            {
                throw TemplateError.Invalid(Line, "a parameter without a default value follows one with a default value");
            }

            parameters.Add((parameter, otherwise));
            if (!Current.Is(")"))
            {
                Require(",");
            }
        }

        return parameters;
    }

    /// <summary>Statements that run as a function: loops around them cannot be ended there.</summary>
    private TemplateBlock Function(IEnumerable<(string Name, TemplateExpression? Default)> parameters, out IReadOnlySet<string> uses)
    {
        (int loops, HashSet<string> before) = (_loops, _uses);
        (_loops, _uses) = (0, []);
        TemplateBlock body = Block([.. parameters.Select(static parameter => parameter.Name), .. s_macroNames]);
        uses = _uses;

        // A macro around it reads what this one reads.
        before.UnionWith(_uses);
        (_loops, _uses) = (loops, before);
        return body;
    }

    private TemplateTarget Targets(bool withMembers, bool several = true)
    {
        List<TemplateTarget> targets = [];
        bool isTuple = false;
        do
        {
            if (targets.Count > 0 && (Current.Is("in") || Current.Is("=") || Current.Is(")")))
            {
                break;
            }

            targets.Add(Target(withMembers));
            isTuple |= several && Current.Is(",");
        }
        while (several && Skip(","));
        return isTuple ? new SeveralTargets(targets) : targets[0];
    }

    private TemplateTarget Target(bool withMembers)
    {
        Deeper();
        TemplateTarget target;
        if (Skip("("))
        {
            target = Targets(withMembers);
            Require(")");
        }
        else
        {
            string name = Name();
            target = withMembers && Skip(".") ? new MemberTarget(name, Name()) : new NameTarget(name);
        }

        _depth--;
        return target;
    }

    /// <summary>An expression, or several with commas between them, which are a tuple.</summary>
    private TemplateExpression Tuple(bool withCondition = true)
    {
        int line = Line;
        TemplateExpression first = withCondition ? Expression() : Or();
        if (!Current.Is(","))
        {
            return first;
        }

        List<TemplateExpression> items = [first];
        while (Skip(","))
        {
            if (Current.Kind is TemplateTokenKind.BlockEnd or TemplateTokenKind.VariableEnd || Current.Is(")"))
            {
                break;
            }

            items.Add(withCondition ? Expression() : Or());
        }

        return new ListExpression(line, items, IsTuple: true);
    }

    private TemplateExpression Expression()
    {
        Deeper();
        int line = Line;
        TemplateExpression value = Or();
        while (Skip("if"))
        {
            TemplateExpression condition = Or();
            _conditions++;
            value = new ConditionExpression(line, condition, value, Skip("else") ? Expression() : null);
            _conditions--;
        }

        _depth--;
        return value;
    }

    private TemplateExpression Or()
    {
        TemplateExpression left = And();
        while (Current.Is("or"))
        {
            int line = Take().Line;
            left = new LogicExpression(line, left, And(), IsAnd: false);
        }

        return left;
    }

    private TemplateExpression And()
    {
        TemplateExpression left = Not();
        while (Current.Is("and"))
        {
            int line = Take().Line;
            left = new LogicExpression(line, left, Not(), IsAnd: true);
        }

        return left;
    }

    private TemplateExpression Not()
    {
        if (!Current.Is("not"))
        {
            return Comparison();
        }

        Deeper();
        int line = Take().Line;
        NotExpression negated = new(line, Not());
        _depth--;
        return negated;
    }

    private TemplateExpression Comparison()
    {
        int line = Line;
        TemplateExpression first = Sum();
        List<(string, TemplateExpression)> rest = [];
        while (true)
        {
            if (Current.Kind == TemplateTokenKind.Operator && s_comparisons.Contains(Current.Text))
            {
                string comparison = Take().Text;
                rest.Add((comparison, Sum()));
            }
            else if (Skip("in"))
            {
                rest.Add(("in", Sum()));
            }
            else if (Current.Is("not") && _tokens[_at + 1].Is("in"))
            {
                _at += 2;
                rest.Add(("not in", Sum()));
            }
            else
            {
                return rest.Count == 0 ? first : new CompareExpression(line, first, rest);
            }
        }
    }

    private TemplateExpression Sum() => Chain(Concatenation, "+", "-");

    private TemplateExpression Concatenation() => Chain(Product, "~");

    private TemplateExpression Product() => Chain(Power, "*", "/", "//", "%");

    private TemplateExpression Power() => Chain(Unary, "**");

    private TemplateExpression Chain(Func<TemplateExpression> operand, params string[] operators)
    {
        TemplateExpression left = operand();
        while (Current.Kind == TemplateTokenKind.Operator && operators.Contains(Current.Text))
        {
            TemplateToken token = Take();
            left = new MathExpression(token.Line, token.Text, left, operand());
        }

        return left;
    }

    private TemplateExpression Unary(bool withFilters)
    {
        Deeper();
        int line = Line;
        TemplateExpression value = Skip("-") ? new SignExpression(line, Unary(withFilters: false), IsNegative: true)
            : Skip("+") ? new SignExpression(line, Unary(withFilters: false), IsNegative: false)
            : Primary();
        value = Postfix(value);
        value = withFilters ? Filters(value) : value;
        _depth--;
        return value;
    }

    private TemplateExpression Unary() => Unary(withFilters: true);

    private TemplateExpression Primary()
    {
        TemplateToken token = Take();
        switch (token.Kind)
        {
            case TemplateTokenKind.Name:
                if (s_macroNames.Contains(token.Text))
                {
                    _uses.Add(token.Text);
                }

                _names.Read(token.Text);
                return token.Text switch
                {
                    "true" or "True" => new ConstantExpression(token.Line, true),
                    "false" or "False" => new ConstantExpression(token.Line, false),
                    "none" or "None" => new ConstantExpression(token.Line, null),
                    _ => new NameExpression(token.Line, token.Text),
                };
            case TemplateTokenKind.String:
                string text = token.Text;
                while (Current.Kind == TemplateTokenKind.String)
                {
                    text += Take().Text;
                }

                return new ConstantExpression(token.Line, text);
            case TemplateTokenKind.Integer:
                int radix = token.Text.Length < 2 ? 10 : char.ToLowerInvariant(token.Text[1]) switch { 'b' => 2, 'o' => 8, 'x' => 16, _ => 10 };
                return new ConstantExpression(token.Line, PythonNumbers.ReadWhole(token.Text, radix) ?? throw TemplateError.Invalid(token.Line, $"'{token.Text}' is not a number"));
            case TemplateTokenKind.Float:
                return new ConstantExpression(token.Line, double.Parse(token.Text, CultureInfo.InvariantCulture));
            case TemplateTokenKind.Operator when token.Text == "(":
                if (Skip(")"))
                {
                    return new ListExpression(token.Line, [], IsTuple: true);
                }

                TemplateExpression inner = Tuple();
                Require(")");
                return inner;
            case TemplateTokenKind.Operator when token.Text == "[":
                return new ListExpression(token.Line, Items("]"), IsTuple: false);
            case TemplateTokenKind.Operator when token.Text == "{":
                return Map(token.Line);
            default:
                throw TemplateError.Invalid(token.Line, token.Text.Length > 0 ? $"'{token.Text}' is not expected" : "an expression is missing");
        }
    }

    private List<TemplateExpression> Items(string end)
    {
        List<TemplateExpression> items = [];
        while (!Skip(end))
        {
            items.Add(Expression());
            if (!Current.Is(end))
            {
                Require(",");
            }
        }

        return items;
    }

    private MapExpression Map(int line)
    {
        List<(TemplateExpression, TemplateExpression)> members = [];
        while (!Skip("}"))
        {
            TemplateExpression key = Expression();
            Require(":");
            members.Add((key, Expression()));
            if (!Current.Is("}"))
            {
                Require(",");
            }
        }

        return new(line, members);
    }

    private TemplateExpression Postfix(TemplateExpression value)
    {
        while (true)
        {
            int line = Line;
            if (Skip("."))
            {
                value = Current.Kind == TemplateTokenKind.Integer
                    ? new IndexExpression(line, value, Primary())
                    : new AttributeExpression(line, value, Name());
            }
            else if (Skip("["))
            {
                value = Subscript(line, value);
            }
            else if (Current.Is("("))
            {
                _at++;
                value = Call(line, value);
            }
            else
            {
                return value;
            }
        }
    }

    private CallExpression Call(int line, TemplateExpression target)
    {
        // A method of no value that templates have is told when the template is read; a namespace and the loop have functions of their own.
        if (target is AttributeExpression method && !TemplateMethods.IsKnown(method.Name) && (method.Target is not NameExpression || TemplateMethods.IsRefused(method.Name)))
        {
            Refuse(line, $"the method '{method.Name}'");
        }

        return new CallExpression(line, target, Arguments());
    }

    private TemplateExpression Subscript(int line, TemplateExpression target)
    {
        TemplateExpression? start = Current.Is(":") ? null : Expression();
        if (Skip("]"))
        {
            return new IndexExpression(line, target, start!);
        }

        Require(":");
        TemplateExpression? stop = Current.Is(":") || Current.Is("]") ? null : Expression();
        TemplateExpression? step = Skip(":") && !Current.Is("]") ? Expression() : null;
        if (Current.Is(","))
        {
            throw TemplateError.Unsupported(line, "several places of a list");
        }

        Require("]");
        return new SliceExpression(line, target, start, stop, step);
    }

    private ArgumentExpressions Arguments()
    {
        List<TemplateExpression> positional = [];
        List<(string, TemplateExpression)> named = [];
        TemplateExpression? more = null;
        TemplateExpression? moreNamed = null;
        while (!Skip(")"))
        {
            if (moreNamed is null && Skip("**"))
            {
                moreNamed = Expression();
            }
            else if (more is null && moreNamed is null && Skip("*"))
            {
                more = Expression();
            }
            else if (Current.Kind == TemplateTokenKind.Name && _tokens[_at + 1].Is("="))
            {
                string name = Name();
                _at++;
                if (named.Exists(argument => argument.Item1 == name))
                {
                    throw TemplateError.Invalid(Line, $"the argument '{name}' is given twice");
                }

                named.Add((name, Expression()));
            }
            else
            {
                positional.Add(named.Count == 0 && more is null && moreNamed is null ? Expression() : throw TemplateError.Invalid(Line, "an argument without a name follows one with a name"));
            }

            if (!Current.Is(")"))
            {
                Require(",");
            }
        }

        return new(positional, named, more, moreNamed);
    }

    private TemplateExpression Filters(TemplateExpression value)
    {
        while (true)
        {
            int line = Line;
            if (Skip("|"))
            {
                value = Filter(line, value);
            }
            else if (Skip("is"))
            {
                value = Test(line, value);
            }
            else if (Skip("("))
            {
                value = Call(line, value);
            }
            else
            {
                return value;
            }
        }
    }

    private FilterExpression Filter(int line, TemplateExpression value)
    {
        string name = Name();
        if (!TemplateFilters.All.ContainsKey(name))
        {
            Refuse(line, $"the filter '{name}'");
        }

        return new(line, value, name, Skip("(") ? Arguments() : ArgumentExpressions.None);
    }

    private TestExpression Test(int line, TemplateExpression value)
    {
        bool negated = Skip("not");
        string name = Name();
        if (!TemplateTests.All.ContainsKey(name))
        {
            Refuse(line, $"the test '{name}'");
        }

        ArgumentExpressions arguments = ArgumentExpressions.None;
        if (Skip("("))
        {
            arguments = Arguments();
        }
        else if (Current.Kind is TemplateTokenKind.String or TemplateTokenKind.Integer or TemplateTokenKind.Float || Current.Is("[") || Current.Is("{")
            || (Current.Kind == TemplateTokenKind.Name && Current.Text is not ("else" or "or" or "and" or "is")))
        {
            arguments = new([Postfix(Primary())], []);
        }

        return Current.Is("is") && arguments == ArgumentExpressions.None ? throw TemplateError.Invalid(Line, "a test of a test needs brackets") : new(line, value, name, arguments, negated);
    }

    // Under a condition a template may name what only another program has: it is refused when it gets there.
    private void Refuse(int line, string feature)
    {
        if (_conditions == 0)
        {
            throw TemplateError.Unsupported(line, feature);
        }
    }

    private TemplateToken Take() => _tokens[Current.Kind == TemplateTokenKind.End ? _at : _at++];

    private bool Skip(string text)
    {
        if (!Current.Is(text))
        {
            return false;
        }

        _at++;
        return true;
    }

    private void Require(string text)
    {
        if (!Skip(text))
        {
            throw TemplateError.Invalid(Line, $"'{text}' is missing{(Current.Text.Length > 0 ? $" before '{Current.Text}'" : "")}");
        }
    }

    private void Expect(TemplateTokenKind kind)
    {
        if (Current.Kind != kind)
        {
            throw TemplateError.Invalid(Line, Current.Text.Length > 0 ? $"'{Current.Text}' is not expected" : "a tag is missing");
        }

        _at++;
    }

    private string Name() => Current.Kind == TemplateTokenKind.Name ? Take().Text : throw TemplateError.Invalid(Line, "a name is missing");

    private void End(string name)
    {
        Expect(TemplateTokenKind.BlockBegin);
        Require(name);
        Expect(TemplateTokenKind.BlockEnd);
    }

    /// <summary>
    /// The variables of a block while it is read. Jinja settles where a name belongs before it renders: one that a block sets, and no block around it
    /// has, is its own from its beginning, unless the block reads it before, or sets it under a condition. An inner block that reads it before it is
    /// set finds nothing.
    /// </summary>
    private sealed class Names
    {
        private readonly Names? _outer;
        private readonly List<Names> _inner = [];
        private readonly HashSet<string> _readInside = [];

        public Names(Names? outer)
        {
            _outer = outer;
            _outer?._inner.Add(this);
        }

        /// <summary>Names that the block has read or set so far.</summary>
        public HashSet<string> Known { get; } = [];

        /// <summary>Names that it sets only after an inner block has read them.</summary>
        public List<string> Late { get; } = [];

        public void Read(string name)
        {
            if (Known.Add(name))
            {
                for (Names? outer = _outer; outer?.Known.Contains(name) == false; outer = outer._outer)
                {
                    outer._readInside.Add(name);
                }
            }
        }

        public void Set(string name, bool isAlways)
        {
            if (Known.Add(name) && isAlways && _readInside.Contains(name))
            {
                Late.Add(name);
            }
        }

        /// <summary>Leaves names to the blocks around that have them, once all is read.</summary>
        public void Settle()
        {
            Late.RemoveAll(IsOutside);
            foreach (Names inner in _inner)
            {
                inner.Settle();
            }
        }

        private bool IsOutside(string name) => _outer is not null && (_outer.Known.Contains(name) || _outer.IsOutside(name));
    }
}
