//go:build unix

package readme_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced block of a page.
type block struct {
	line int    // of the opening fence
	lang string // the first word of the info string
	mode string // the rest of it
	code string
}

// section is a part of a page under one second-level heading.
type section struct {
	title  string // "" = before the first heading
	blocks []block
}

// page is a document of the repository.
type page struct {
	name     string // path from the root
	text     string
	sections []section
}

// pages reads every document.
func pages(t *testing.T) []page {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(repository(), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	names = append([]string{filepath.Join(repository(), "README.md")}, names...)
	var all []page
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(repository(), name)
		if err != nil {
			t.Fatal(err)
		}
		p := page{name: filepath.ToSlash(rel), text: string(text)}
		if p.sections, err = parse(p.text); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		all = append(all, p)
	}
	return all
}

func parse(text string) ([]section, error) {
	sections := []section{{}}
	var open *block
	number := 0
	for line := range strings.Lines(text) {
		number++
		bare := strings.TrimRight(line, "\n")
		switch {
		case open != nil && bare == "```":
			s := &sections[len(sections)-1]
			s.blocks = append(s.blocks, *open)
			open = nil
		case open != nil:
			open.code += line
		case strings.HasPrefix(bare, "```"):
			lang, mode, _ := strings.Cut(bare[3:], " ")
			open = &block{line: number, lang: lang, mode: mode}
			if err := open.check(); err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
		case strings.HasPrefix(bare, "## "):
			sections = append(sections, section{title: bare[3:]})
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block is not closed", open.line)
	}
	return sections, nil
}

// check finds blocks that would silently not be tested.
func (b *block) check() error {
	known := map[string][]string{"sh": {"", "stays", "fails"}, "text": {"", "elsewhere"}}
	modes, ok := known[b.lang]
	if !ok {
		if !strings.HasPrefix(b.mode, "file=") {
			return fmt.Errorf("a block of %q: expected sh, text, or a language with file=NAME", b.lang)
		}
		return nil
	}
	for _, m := range modes {
		if b.mode == m {
			return nil
		}
	}
	return fmt.Errorf("a block %q: expected one of %q after %s", b.mode, modes, b.lang)
}

// outside is the text without its fenced blocks.
func (p *page) outside() string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(p.text, "")
}

func repository() string {
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return root
}
