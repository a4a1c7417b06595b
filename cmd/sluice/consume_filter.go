package main

import (
	"fmt"
	"strings"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/spf13/pflag"
)

// consumeFilter says which messages are printed.
type consumeFilter struct {
	devices, contentTypes, properties []string
	since                             string
	ttdOnly                           bool

	from time.Time // of since
}

func (f *consumeFilter) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.devices, "device", nil, "print messages of this `device`, such as 4711 or 'meter-*'; repeatable")
	flags.StringSliceVar(&f.contentTypes, "content-type", nil, "print messages of this content `type`, such as 'text/*'; repeatable")
	flags.StringArrayVar(&f.properties, "property", nil, "print messages with this application property, `name=value`; repeatable, for one name any")
	flags.StringVar(&f.since, "since", "", "print messages created since then: a `time` such as 2026-01-31T12:00:00Z, or 10m ago")
	flags.BoolVar(&f.ttdOnly, "ttd-only", false, "print messages that say how long their device can be reached")
}

// compile checks the filter; now is what --since counts from.
func (f *consumeFilter) compile(now time.Time) error {
	for _, p := range f.properties {
		if name, _, ok := strings.Cut(p, "="); !ok || name == "" {
			return fmt.Errorf("--property %q: expected name=value", p)
		}
	}
	if f.since == "" {
		return nil
	}
	if ago, err := time.ParseDuration(f.since); err == nil && ago >= 0 {
		f.from = now.Add(-ago)
		return nil
	}
	at, err := time.Parse(time.RFC3339, f.since)
	if err != nil {
		return fmt.Errorf("--since %q: expected a time such as 2026-01-31T12:00:00Z, or a duration such as 10m", f.since)
	}
	f.from = at
	return nil
}

// match says whether a message is to be printed.
func (f *consumeFilter) match(m *goamqp.Message) bool {
	var contentType string
	var created time.Time
	if p := m.Properties; p != nil {
		if p.ContentType != nil {
			contentType = *p.ContentType
		}
		if p.CreationTime != nil {
			created = *p.CreationTime
		}
	}
	_, ttd := m.ApplicationProperties["ttd"]
	return (!f.ttdOnly || ttd) &&
		(f.from.IsZero() || !created.Before(f.from)) &&
		matchesAny(f.devices, fmt.Sprint(m.ApplicationProperties["device_id"])) &&
		matchesAny(f.contentTypes, contentType) &&
		f.matchProperties(m)
}

// matchProperties wants each name that is given to have one of its values.
func (f *consumeFilter) matchProperties(m *goamqp.Message) bool {
	found := map[string]bool{}
	for _, p := range f.properties {
		name, want, _ := strings.Cut(p, "=")
		have, ok := m.ApplicationProperties[name]
		found[name] = found[name] || ok && wildcard(want, fmt.Sprint(have))
	}
	for _, ok := range found {
		if !ok {
			return false
		}
	}
	return true
}

// matchesAny is true where there are no patterns.
func matchesAny(patterns []string, text string) bool {
	for _, p := range patterns {
		if wildcard(p, text) {
			return true
		}
	}
	return len(patterns) == 0
}

// wildcard compares with * for any run of characters and ? for one.
func wildcard(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
