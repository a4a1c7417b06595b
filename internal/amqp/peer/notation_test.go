package peer_test

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// The notation of frames in scripts: a performative's name, @channel unless it
// is 0, and its fields as name=value in kebab case; a field that is true stands
// alone. Fields with their default are left out.

var performatives = map[string]func() (amqp.FrameType, amqp.Performative){
	"open": func() (amqp.FrameType, amqp.Performative) {
		return amqp.FrameAMQP, &amqp.Open{MaxFrameSize: 1<<32 - 1, ChannelMax: 1<<16 - 1}
	},
	"begin": func() (amqp.FrameType, amqp.Performative) {
		return amqp.FrameAMQP, &amqp.Begin{HandleMax: 1<<32 - 1}
	},
	"attach": func() (amqp.FrameType, amqp.Performative) {
		return amqp.FrameAMQP, &amqp.Attach{SenderSettleMode: amqp.SenderMixed}
	},
	"flow":        func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.Flow{} },
	"transfer":    func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.Transfer{} },
	"disposition": func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.Disposition{} },
	"detach":      func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.Detach{} },
	"end":         func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.End{} },
	"close":       func() (amqp.FrameType, amqp.Performative) { return amqp.FrameAMQP, &amqp.Close{} },
	"mechanisms":  func() (amqp.FrameType, amqp.Performative) { return amqp.FrameSASL, &amqp.SASLMechanisms{} },
	"init":        func() (amqp.FrameType, amqp.Performative) { return amqp.FrameSASL, &amqp.SASLInit{} },
	"challenge":   func() (amqp.FrameType, amqp.Performative) { return amqp.FrameSASL, &amqp.SASLChallenge{} },
	"response":    func() (amqp.FrameType, amqp.Performative) { return amqp.FrameSASL, &amqp.SASLResponse{} },
	"outcome":     func() (amqp.FrameType, amqp.Performative) { return amqp.FrameSASL, &amqp.SASLOutcome{} },
}

var headers = map[string]string{"SASL": amqp.HeaderSASL, "AMQP": amqp.HeaderAMQP, "TLS": amqp.HeaderTLS}

func kebab(name string) string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('-')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// words splits a line at blanks outside of quotes.
func words(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && r == ' '
	})
}

// parseFrame encodes a frame written in the notation.
func parseFrame(line string) ([]byte, error) {
	w := words(line)
	name, channel, _ := strings.Cut(w[0], "@")
	switch name {
	case "header":
		return []byte(headers[w[1]]), nil
	case "raw":
		return hex.DecodeString(strings.Join(w[1:], ""))
	case "heartbeat":
		return amqp.AppendHeartbeat(nil), nil
	}
	make, ok := performatives[name]
	if !ok {
		return nil, fmt.Errorf("no frame is called %q", name)
	}
	ft, p := make()
	ch, _ := strconv.Atoi(channel)
	var payload []byte
	for _, field := range w[1:] {
		k, v, _ := strings.Cut(field, "=")
		if k == "payload" {
			payload = parseBytes(v)
			continue
		}
		if err := setField(reflect.ValueOf(p).Elem(), k, v); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
	}
	if d, ok := p.(*amqp.Disposition); ok && !strings.Contains(line, " last=") {
		d.Last = d.First
	}
	b := p.Append(amqp.OpenFrame(nil, ft, uint16(ch)))
	return amqp.CloseFrame(append(b, payload...), 0), nil
}

// parseBytes reads "text", 300*x or hexadecimal digits.
func parseBytes(v string) []byte {
	if n, c, ok := strings.Cut(v, "*"); ok {
		k, _ := strconv.Atoi(n)
		return []byte(strings.Repeat(c, k))
	}
	if s, err := strconv.Unquote(v); err == nil {
		return []byte(s)
	}
	b, err := hex.DecodeString(v)
	if err != nil {
		panic(err)
	}
	return b
}

func parseError(v string) *amqp.Error {
	if s, err := strconv.Unquote(v); err == nil {
		v = s
	}
	if v == "" {
		return nil
	}
	cond, text, _ := strings.Cut(v, ": ")
	return &amqp.Error{Condition: amqp.Symbol(cond), Description: text}
}

func parseState(v string) amqp.Raw {
	switch kind, arg, _ := strings.Cut(v, "/"); kind {
	case "accepted":
		return amqp.StateAccepted
	case "released":
		return amqp.StateReleased
	case "failed":
		return amqp.StateDeliveryFailed
	case "rejected":
		return amqp.AppendRejected(nil, parseError(arg))
	case "received":
		return (&amqp.Received{}).Append(nil)
	case "", "none":
		return nil
	}
	panic("no state " + v)
}

func setField(p reflect.Value, name, v string) error {
	for i := range p.NumField() {
		sf := p.Type().Field(i)
		if kebab(sf.Name) != name {
			continue
		}
		if has := p.FieldByName("Has" + sf.Name); has.IsValid() {
			has.SetBool(true)
		}
		return setValue(p.Field(i), sf.Name, v)
	}
	return fmt.Errorf("%s has no field %q", p.Type(), name)
}

func setValue(f reflect.Value, name, v string) error {
	if s, err := strconv.Unquote(v); err == nil && f.Kind() == reflect.String {
		v = s
	}
	switch p := f.Addr().Interface().(type) {
	case *amqp.Role:
		*p = v == "receiver"
	case *amqp.SenderSettleMode:
		*p = map[string]amqp.SenderSettleMode{"unsettled": 0, "settled": 1, "mixed": 2}[v]
	case *amqp.ReceiverSettleMode:
		*p = map[string]amqp.ReceiverSettleMode{"first": 0, "second": 1}[v]
	case **amqp.Error:
		*p = parseError(v)
	case **amqp.Source:
		*p = &amqp.Source{Address: v, HasAddress: true}
	case **amqp.Target:
		*p = &amqp.Target{Address: v, HasAddress: v != "-"}
		if v == "-" {
			(*p).Address = ""
		}
	case *amqp.Raw:
		if name != "State" {
			*p = parseBytes(v)
			return nil
		}
		*p = parseState(v)
	case *[]amqp.Symbol:
		for s := range strings.SplitSeq(v, ",") {
			*p = append(*p, amqp.Symbol(s))
		}
	case *[]byte:
		*p = parseBytes(v)
	default:
		return setPlain(f, v)
	}
	return nil
}

func setPlain(f reflect.Value, v string) error {
	switch f.Kind() {
	case reflect.String:
		f.SetString(v)
	case reflect.Bool:
		f.SetBool(v == "" || v == "true")
	default:
		n, err := strconv.ParseUint(v, 10, f.Type().Bits())
		f.SetUint(n)
		return err
	}
	return nil
}

// formatOutput writes each header and frame of b in the notation.
func formatOutput(b []byte) []string {
	var lines []string
	for len(b) > 0 {
		if len(b) >= 8 && string(b[:4]) == "AMQP" {
			for name, h := range headers {
				if string(b[:8]) == h {
					lines = append(lines, "header "+name)
				}
			}
			b = b[8:]
			continue
		}
		f, n, err := amqp.ParseFrame(b, 1<<20)
		if err != nil || n == 0 {
			return append(lines, fmt.Sprintf("BROKEN %x: %v", b, err))
		}
		lines = append(lines, formatFrame(f))
		b = b[n:]
	}
	return lines
}

func formatFrame(f amqp.Frame) string {
	if len(f.Body) == 0 {
		return "heartbeat"
	}
	p, payload, err := amqp.DecodePerformative(f.Body)
	if err != nil {
		return "BROKEN: " + err.Error()
	}
	for name, make := range performatives {
		_, def := make()
		if reflect.TypeOf(def) != reflect.TypeOf(p) {
			continue
		}
		if f.Channel != 0 {
			name += fmt.Sprintf("@%d", f.Channel)
		}
		s := name + formatFields(reflect.ValueOf(p).Elem(), reflect.ValueOf(def).Elem())
		if name == "transfer" {
			s += " payload=" + formatBytes(payload)
		}
		return s
	}
	return fmt.Sprintf("%T", p)
}

func formatFields(p, def reflect.Value) string {
	var b strings.Builder
	for i := range p.NumField() {
		name := p.Type().Field(i).Name
		has := p.FieldByName("Has" + name)
		show := !reflect.DeepEqual(p.Field(i).Interface(), def.Field(i).Interface())
		if has.IsValid() {
			show = has.Bool()
		}
		if name == "Last" {
			show = p.Field(i).Uint() != p.FieldByName("First").Uint()
		}
		if !show || strings.HasPrefix(name, "Has") {
			continue
		}
		b.WriteString(" " + kebab(name))
		if v := formatValue(p.Field(i).Interface(), name); v != "true" {
			b.WriteString("=" + v)
		}
	}
	return b.String()
}

func formatValue(v any, name string) string {
	switch v := v.(type) {
	case *amqp.Error:
		return formatError(v)
	case *amqp.Source:
		return v.Address
	case *amqp.Target:
		if !v.HasAddress {
			return "-"
		}
		return v.Address
	case amqp.Raw:
		if name == "State" {
			return formatState(v)
		}
		return hex.EncodeToString(v)
	case []byte:
		return formatBytes(v)
	case []amqp.Symbol:
		var s []string
		for _, x := range v {
			s = append(s, string(x))
		}
		return strings.Join(s, ",")
	}
	return fmt.Sprint(v)
}

func formatError(e *amqp.Error) string {
	if e == nil {
		return ""
	}
	return strconv.Quote(e.Error())
}

func formatBytes(b []byte) string {
	switch {
	case len(b) > 40:
		return fmt.Sprintf("%d*%c", len(b), b[0])
	case strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' || r > '~' }):
		return hex.EncodeToString(b)
	}
	return strconv.Quote(string(b))
}

func formatState(r amqp.Raw) string {
	v, err := amqp.DecodeState(r)
	if err != nil {
		return hex.EncodeToString(r)
	}
	switch v := v.(type) {
	case nil:
		return "none"
	case amqp.Accepted:
		return "accepted"
	case amqp.Released:
		return "released"
	case *amqp.Rejected:
		if v.Error == nil {
			return "rejected"
		}
		return "rejected/" + formatError(v.Error)
	case *amqp.Modified:
		if v.DeliveryFailed {
			return "failed"
		}
		return "modified"
	case *amqp.Received:
		return "received"
	}
	return "?"
}
