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

    private readonly List<TemplateToken> _tokens;
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

    public static (IReadOnlyList<TemplateStatement> Body, bool HasGeneration, bool HasDate) Parse(string source)
    {
        TemplateParser parser = new(source);
        List<TemplateStatement> body = parser.Body();
        return parser.Current.Kind == TemplateTokenKind.End
            ? (body, parser.HasGeneration, parser.HasDate)
            : throw TemplateError.Invalid(parser.Line, $"'{parser._tokens[parser._at + 1].Text}' is not expected");
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
            case "generation":
                HasGeneration = true;
                Expect(TemplateTokenKind.BlockEnd);
                List<TemplateStatement> said = Body();
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
            branches.Add((condition, Body()));
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
        List<string> names = Targets();
        Require("in");
        TemplateExpression items = Tuple(withCondition: false);
        TemplateExpression? condition = Skip("if") ? Expression() : null;
        if (Current.Is("recursive"))
        {
            throw TemplateError.Unsupported(line, "'recursive' of a loop");
        }

        Expect(TemplateTokenKind.BlockEnd);
        _loops++;
        List<TemplateStatement> body = Body();
        _loops--;
        List<TemplateStatement> otherwise = [];
        if (_tokens[_at + 1].Is("else"))
        {
            End("else");
            otherwise = Body();
        }

        End("endfor");
        return new(line, names, items, condition, body, otherwise);
    }

    private TemplateStatement Set(int line)
    {
        List<string> names = Targets();
        string? member = names.Count == 1 && Skip(".") ? Name() : null;
        if (Skip("="))
        {
            TemplateExpression value = Tuple();
            Expect(TemplateTokenKind.BlockEnd);
            return new SetStatement(line, names, member, value);
        }

        if (Current.Is("|"))
        {
            throw TemplateError.Unsupported(line, "a filter of a 'set' block");
        }

        if (names.Count > 1 || member is not null)
        {
            throw TemplateError.Invalid(line, "'set' has no value");
        }

        Expect(TemplateTokenKind.BlockEnd);
        List<TemplateStatement> body = Body();
        End("endset");
        return new SetBlockStatement(line, names[0], body);
    }

    private MacroStatement Macro(int line)
    {
        string name = Name();
        List<(string, TemplateExpression?)> parameters = [];
        Require("(");
        while (!Skip(")"))
        {
            string parameter = Name();
            parameters.Add((parameter, Skip("=") ? Expression() : null));
            if (!Current.Is(")"))
            {
                Require(",");
            }
        }

        Expect(TemplateTokenKind.BlockEnd);
        int loops = _loops;
        _loops = 0;
        List<TemplateStatement> body = Body();
        _loops = loops;
        End("endmacro");
        return new(line, name, parameters, body);
    }

    private List<string> Targets()
    {
        bool bracket = Skip("(");
        List<string> names = [Name()];
        while (Skip(","))
        {
            names.Add(Name());
        }

        if (bracket)
        {
            Require(")");
        }

        return names;
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

        return new ListExpression(line, items);
    }

    private TemplateExpression Expression()
    {
        Deeper();
        int line = Line;
        TemplateExpression value = Or();
        while (Skip("if"))
        {
            TemplateExpression condition = Or();
            value = new ConditionExpression(line, condition, value, Skip("else") ? Expression() : null);
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

    private TemplateExpression Product() => Chain(Unary, "*", "/", "//", "%");

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
        TemplateExpression value = Skip("-") ? new NegativeExpression(line, Unary(withFilters: false))
            : Skip("+") ? Unary(withFilters: false)
            : Postfix(Primary());
        value = withFilters ? Filters(value) : value;
        _depth--;
        return Current.Is("**") ? throw TemplateError.Unsupported(Line, "'**'") : value;
    }

    private TemplateExpression Unary() => Unary(withFilters: true);

    private TemplateExpression Primary()
    {
        TemplateToken token = Take();
        switch (token.Kind)
        {
            case TemplateTokenKind.Name:
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
            case TemplateTokenKind.Number:
                return new ConstantExpression(token.Line, long.TryParse(token.Text, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
                    ? (object)number
                    : double.Parse(token.Text, CultureInfo.InvariantCulture));
            case TemplateTokenKind.Operator when token.Text == "(":
                if (Skip(")"))
                {
                    return new ListExpression(token.Line, []);
                }

                TemplateExpression inner = Tuple();
                Require(")");
                return inner;
            case TemplateTokenKind.Operator when token.Text == "[":
                return new ListExpression(token.Line, Items("]"));
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
                value = Current.Kind == TemplateTokenKind.Number
                    ? new IndexExpression(line, value, new ConstantExpression(line, long.Parse(Take().Text, CultureInfo.InvariantCulture)))
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

    private TemplateExpression Call(int line, TemplateExpression target)
    {
        ArgumentExpressions arguments = Arguments();
        return target is not AttributeExpression method ? new CallExpression(line, target, arguments)
            : TemplateLibrary.Methods.ContainsKey(method.Name) ? new MethodExpression(line, method.Target, method.Name, arguments)
            : throw TemplateError.Unsupported(line, $"the method '{method.Name}'");
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
        Require("]");
        return new SliceExpression(line, target, start, stop, step);
    }

    private ArgumentExpressions Arguments()
    {
        List<TemplateExpression> positional = [];
        List<(string, TemplateExpression)> named = [];
        while (!Skip(")"))
        {
            if (Current.Is("*") || Current.Is("**"))
            {
                throw TemplateError.Unsupported(Line, "'*' in front of an argument");
            }

            if (Current.Kind == TemplateTokenKind.Name && _tokens[_at + 1].Is("="))
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
                positional.Add(named.Count == 0 ? Expression() : throw TemplateError.Invalid(Line, "an argument without a name follows one with a name"));
            }

            if (!Current.Is(")"))
            {
                Require(",");
            }
        }

        return new(positional, named);
    }

    private TemplateExpression Filters(TemplateExpression value)
    {
        while (true)
        {
            int line = Line;
            if (Skip("|"))
            {
                string name = Name();
                if (!TemplateLibrary.Filters.ContainsKey(name))
                {
                    throw TemplateError.Unsupported(line, $"the filter '{name}'");
                }

                value = new FilterExpression(line, value, name, Skip("(") ? Arguments() : ArgumentExpressions.None);
            }
            else if (Skip("is"))
            {
                value = Test(line, value);
            }
            else
            {
                return value;
            }
        }
    }

    private TestExpression Test(int line, TemplateExpression value)
    {
        bool negated = Skip("not");
        string name = Name();
        if (!TemplateLibrary.Tests.ContainsKey(name))
        {
            throw TemplateError.Unsupported(line, $"the test '{name}'");
        }

        ArgumentExpressions arguments = ArgumentExpressions.None;
        if (Skip("("))
        {
            arguments = Arguments();
        }
        else if (Current.Kind is TemplateTokenKind.String or TemplateTokenKind.Number
            || (Current.Kind == TemplateTokenKind.Name && Current.Text is not ("else" or "or" or "and" or "is" or "if" or "in" or "not")))
        {
            arguments = new([Postfix(Primary())], []);
        }

        return new(line, value, name, arguments, negated);
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
}
