package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestPrintTable(t *testing.T) {
	long := strings.Repeat("x", widestColumn+1)
	for name, c := range map[string]struct {
		rows [][]string
		want string
	}{
		"none":    {nil, "ID  EXT\n"},
		"plain":   {[][]string{{"4711", "-"}, {"a", "b"}}, "ID    EXT\n4711  -\na     b\n"},
		"wide":    {[][]string{{"温度", "-"}, {"e\u0301te\u0301", "-"}, {"🌡", "-"}, {"abcd", "-"}}, "ID    EXT\n温度  -\ne\u0301te\u0301   -\n🌡    -\nabcd  -\n"},
		"long":    {[][]string{{long, "-"}, {"a", "b"}}, "ID  EXT\n" + long + "  -\na   b\n"},
		"control": {[][]string{{"a\x1b[2J\tb\nc", "\u009b1m\u202ex\u2028"}}, "ID         EXT\na [2J b c   1m x \n"},
		"no text": {[][]string{{"\xff\x9b", "-"}}, "ID  EXT\n\ufffd\ufffd  -\n"},
	} {
		var out bytes.Buffer
		if err := printTable(&out, []string{"ID", "EXT"}, c.rows); err != nil || out.String() != c.want {
			t.Errorf("%s: got\n%q\nwant\n%q, %v", name, out.String(), c.want, err)
		}
	}
}

// TestJSONOnATerminal expects nothing that a terminal takes for a command, and the
// same values.
func TestJSONOnATerminal(t *testing.T) {
	text := "{\"a\":\"\\u001b[1m \u009b31m\u202e\x7f ä 温度\",\n\"b\":1}"
	want := "{\"a\":\"\\u001b[1m \\u009b31m\\u202e\\u007f ä 温度\",\n\"b\":1}"
	if got := escapeJSON(text); got != want {
		t.Errorf("got %s", got)
	}
	var before, after any
	if json.Unmarshal([]byte(text), &before) != nil || json.Unmarshal([]byte(want), &after) != nil || compact(before) != compact(after) {
		t.Errorf("got %v, want %v", after, before)
	}
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		e := &escaping{out: &out}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if got, err := e.Write([]byte(rest[:n])); got != n || err != nil {
				t.Fatal(got, err)
			}
			rest = rest[n:]
		}
		if out.String() != want {
			t.Errorf("in pieces of %d: got %s", size, out.String())
		}
	}
	var out bytes.Buffer
	if err := encodeJSON(&out, map[string]string{"id": "\u009bm"}); err != nil || out.String() != "{\"id\":\"\\u009bm\"}\n" {
		t.Errorf("got %s, %v", out.String(), err)
	}
	if escapedFor(&out) != &out {
		t.Error("what is no terminal gets something else than was there")
	}
}

// TestMistypedCommands expects an error that names what was meant, and nothing
// that moves the cursor.
func TestMistypedCommands(t *testing.T) {
	for line, want := range map[string]string{
		"tenant lst":            `unknown command "lst" for "sluice tenant"; expected one of create, delete, export, get, import, list, update; nearest: list`,
		"credentials add pks":   "nearest: psk",
		"tenat":                 "Did you mean this?",
		"help nonsense":         `there is no help for "nonsense"`,
		"help tenant lst":       `unknown command "lst"`,
		"router sta":            `unknown command "sta" for "sluice router"; expected one of close-connection, stat; nearest: stat`,
		"completion bahs":       "nearest: bash",
		"tenant list --limt 3":  "unknown flag: --limt; nearest: --limit; see sluice tenant list --help",
		"tenant list --zzzzzz":  "unknown flag: --zzzzzz; see sluice tenant list --help",
		"tenant list --limit x": "see sluice tenant list --help",
		"identity list x":       "got 1 argument; expected: sluice identity list [flags]",
		"event stat":            "got 0 arguments; expected: sluice event stat TENANT [flags]",
		"event list a b c":      "got 3 arguments; expected: sluice event list TENANT [PARTITION] [flags]",
		"event purge a/b --yes": `"a/b" is no tenant`,
		"event list T --max 0":  "--max 0: expected 1 or more",
		"event stat T -o yaml":  `--output "yaml": expected text or json`,
		"\x1b[2Jx":              "unknown command",
	} {
		var out, errs bytes.Buffer
		args := append(strings.Fields(line), "--url", "http://127.0.0.1:1", "--user", "u", "--password", "p")
		if !strings.HasPrefix(line, "event") {
			args = strings.Fields(line)
		}
		if code := run(t.Context(), args, &out, &errs); code != 1 || !strings.Contains(errs.String(), want) || out.Len() > 0 || strings.ContainsRune(errs.String(), 0x1b) {
			t.Errorf("%q: got %d, %q, %q; want %s", line, code, out.String(), errs.String(), want)
		}
	}
	for _, line := range []string{"", "tenant", "credentials add", "help", "help help", "help tenant", "help tenant list", "help completion", "help output", "tenant --help", "completion"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(line), &out, &errs); code != 0 || out.Len() == 0 || errs.Len() > 0 {
			t.Errorf("%q: got %d, %q, %q", line, code, out.String(), errs.String())
		}
	}
}

// TestErrorsAreHarmless expects that what a server says of itself cannot move the cursor.
func TestErrorsAreHarmless(t *testing.T) {
	if got := harmless(errors.Join(errors.New("a\x1b[2J\u009bx"), errors.New("b\r\n")).Error()); got != "a [2J x\nb " {
		t.Errorf("got %q", got)
	}
}
