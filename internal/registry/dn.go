package registry

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// dnKeywords are the attribute types with a name in RFC 2253; all others are
// written as OIDs with the value in hexadecimal.
var dnKeywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	"2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

// dnOIDs are the names that are understood when a DN is read.
var dnOIDs = map[string]string{
	"CN": "2.5.4.3", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "S": "2.5.4.8", "O": "2.5.4.10", "OU": "2.5.4.11",
	"STREET": "2.5.4.9", "DC": oidDC, "UID": "0.9.2342.19200300.100.1.1",
	"EMAILADDRESS": oidEmail, "EMAIL": oidEmail, "E": oidEmail,
	"SERIALNUMBER": "2.5.4.5", "SURNAME": "2.5.4.4", "SN": "2.5.4.4", "GIVENNAME": "2.5.4.42", "INITIALS": "2.5.4.43",
	"GENERATION": "2.5.4.44", "T": "2.5.4.12", "TITLE": "2.5.4.12", "DNQUALIFIER": "2.5.4.46", "DNQ": "2.5.4.46",
}

const (
	oidEmail = "1.2.840.113549.1.9.1"
	oidDC    = "0.9.2342.19200300.100.1.25"
)

// SubjectDN returns the canonical form of a DER name, such as a certificate's
// RawSubject: RFC 2253, last RDN first, no blanks around separators.
func SubjectDN(der []byte) (string, error) {
	var name []dnSET
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", errors.New("is not the DER form of a distinguished name")
	}
	rdns := make([]string, 0, len(name))
	for i := len(name) - 1; i >= 0; i-- {
		parts := make([]string, len(name[i]))
		for j, a := range name[i] {
			parts[j] = formatAttribute(a.Type.String(), a.Value)
		}
		rdns = append(rdns, strings.Join(parts, "+"))
	}
	return strings.Join(rdns, ","), nil
}

// dnSET is one relative distinguished name; its suffix makes it a SET for
// package asn1.
type dnSET []dnAttribute

type dnAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func formatAttribute(oid string, v asn1.RawValue) string {
	keyword, known := dnKeywords[oid]
	if text, ok := textOf(v); known && ok {
		return keyword + "=" + escapeDN(text)
	}
	if known {
		oid = keyword
	}
	return oid + "=#" + hex.EncodeToString(v.FullBytes)
}

// textOf returns the text of the string types that names use.
func textOf(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString:
		return string(v.Bytes), utf8.Valid(v.Bytes)
	case asn1.TagT61String: // in practice Latin-1
		r := make([]rune, len(v.Bytes))
		for i, b := range v.Bytes {
			r[i] = rune(b)
		}
		return string(r), true
	case asn1.TagBMPString:
		var s string
		_, err := asn1.Unmarshal(v.FullBytes, &s)
		return s, err == nil
	}
	return "", false
}

func escapeDN(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		special := strings.IndexByte(`,+"\<>;`, c) >= 0 ||
			c == '#' && i == 0 || c == ' ' && (i == 0 || i == len(s)-1)
		if special {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// CanonicalDN parses a distinguished name as people and RFC 2253 and RFC 4514
// write it and returns the form that [SubjectDN] gives the same name. The
// error says at which byte the text stops being a DN.
func CanonicalDN(s string) (string, error) {
	p := dnParser{s: s}
	var out strings.Builder
	for {
		attribute, err := p.attribute()
		if err != nil {
			return "", fmt.Errorf("at byte %d: %w", p.at, err)
		}
		out.WriteString(attribute)
		if p.at == len(p.s) {
			return out.String(), nil
		}
		separator := p.s[p.at]
		if separator == ';' {
			separator = ','
		}
		out.WriteByte(separator)
		p.at++
	}
}

type dnParser struct {
	s  string
	at int
}

// attribute reads up to the next separator or the end.
func (p *dnParser) attribute() (string, error) {
	equals := strings.IndexByte(p.s[p.at:], '=')
	if equals < 0 {
		return "", errors.New("want attribute=value")
	}
	oid, err := attributeOID(strings.TrimSpace(p.s[p.at : p.at+equals]))
	if err != nil {
		return "", err
	}
	p.at += equals + 1
	for p.at < len(p.s) && p.s[p.at] == ' ' {
		p.at++
	}
	if p.at < len(p.s) && p.s[p.at] == '#' {
		return p.hexValue(oid)
	}
	text, err := p.value()
	if err != nil {
		return "", err
	}
	return formatAttribute(oid, encodeText(oid, text)), nil
}

func attributeOID(name string) (string, error) {
	upper := strings.ToUpper(name)
	if oid, ok := dnOIDs[upper]; ok {
		return oid, nil
	}
	oid := strings.TrimPrefix(upper, "OID.")
	for part := range strings.SplitSeq(oid, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return "", fmt.Errorf("unknown attribute type %.40q", name)
		}
	}
	return oid, nil
}

func (p *dnParser) hexValue(oid string) (string, error) {
	end := strings.IndexAny(p.s[p.at:], ",+;")
	if end < 0 {
		end = len(p.s) - p.at
	}
	der, err := hex.DecodeString(strings.TrimRight(p.s[p.at+1:p.at+end], " "))
	var v asn1.RawValue
	if err == nil {
		var rest []byte
		if rest, err = asn1.Unmarshal(der, &v); len(rest) > 0 {
			err = errors.New("trailing bytes")
		}
	}
	if err != nil {
		return "", errors.New("the value after # is not hexadecimal DER")
	}
	p.at += end
	return formatAttribute(oid, v), nil
}

// value reads a plain, escaped or quoted value.
func (p *dnParser) value() (string, error) {
	var b []byte
	keep := 0 // length up to the last byte that is not a trailing blank
	quoted := p.at < len(p.s) && p.s[p.at] == '"'
	if quoted {
		p.at++
	}
	for ; p.at < len(p.s); p.at++ {
		switch c := p.s[p.at]; {
		case c == '\\':
			n, raw := unescapeDN(p.s[p.at+1:])
			if n == 0 {
				return "", errors.New("incomplete escape")
			}
			b, p.at = append(b, raw), p.at+n
			keep = len(b)
		case quoted && c == '"':
			p.at++
			return string(b), p.endOfQuoted()
		case !quoted && strings.IndexByte(",+;", c) >= 0:
			return text(b[:keep])
		case !quoted && strings.IndexByte(`"<>`, c) >= 0:
			return "", fmt.Errorf("unescaped %q", c)
		default:
			b = append(b, c)
			if c != ' ' || quoted {
				keep = len(b)
			}
		}
	}
	if quoted {
		return "", errors.New("missing closing quote")
	}
	return text(b[:keep])
}

func text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errors.New("value is not UTF-8")
	}
	return string(b), nil
}

func (p *dnParser) endOfQuoted() error {
	for p.at < len(p.s) && p.s[p.at] == ' ' {
		p.at++
	}
	if p.at < len(p.s) && strings.IndexByte(",+;", p.s[p.at]) < 0 {
		return errors.New("text after the closing quote")
	}
	return nil
}

// unescapeDN decodes what follows a backslash and returns how long that was.
func unescapeDN(s string) (n int, b byte) {
	if len(s) >= 2 {
		if raw, err := hex.DecodeString(s[:2]); err == nil {
			return 2, raw[0]
		}
	}
	if s == "" {
		return 0, 0
	}
	return 1, s[0]
}

// encodeText gives a text the string type that names usually have, which
// matters only where the value is written in hexadecimal.
func encodeText(oid, s string) asn1.RawValue {
	tag := asn1.TagUTF8String
	switch {
	case oid == oidEmail || oid == oidDC:
		tag = asn1.TagIA5String
	case isPrintable(s):
		tag = asn1.TagPrintableString
	}
	v := asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(s)}
	v.FullBytes, _ = asn1.Marshal(asn1.RawValue{Class: v.Class, Tag: tag, Bytes: v.Bytes}) // cannot fail for a primitive
	return v
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
	}) < 0
}
