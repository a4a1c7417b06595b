package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/auth"
)

// people are an operator, one who may only look, an application that may do
// everything with tenants, and one of a single tenant.
var people = map[string][]auth.Authority{
	"operator": {may(auth.Read|auth.Write, "$management"), execute("$management:DELETE")},
	"looker":   {may(auth.Read|auth.Write, "$management")},
	"all":      {may(auth.Read|auth.Write, "*"), execute("*:*")},
	"a":        {may(auth.Read|auth.Write, "telemetry/A")},
}

func TestTypesAgreeWithWhatQueryShows(t *testing.T) {
	s := serve(t, nil, people)
	m := s.manager(t, "operator", "")
	types := m.ask(map[string]any{"operation": "GET-TYPES"}, nil).Value.(map[string]any)
	attributes := m.ask(map[string]any{"operation": "GET-ATTRIBUTES", "type": "org.amqp.management"}, nil).Value.(map[string]any)
	operations := m.ask(map[string]any{"operation": "GET-OPERATIONS"}, nil).Value.(map[string]any)
	want := []string{"address", "connection", "identity", "link", "listener", "router"}
	for what, got := range map[string]map[string]any{"types": types, "attributes": attributes, "operations": operations} {
		if keys := sortedKeys(got); !slices.Equal(keys, want) {
			t.Errorf("%s: got %v, want %v", what, keys, want)
		}
	}
	for kind, list := range attributes {
		entities := m.query(kind)
		if len(entities) == 0 {
			t.Errorf("no %s", kind)
			continue
		}
		var names []string
		for _, n := range list.([]any) {
			names = append(names, n.(string))
		}
		slices.Sort(names)
		for _, e := range entities {
			if keys := sortedKeys(e); !slices.Equal(keys, names) {
				t.Errorf("%s: QUERY shows %v, GET-ATTRIBUTES %v", kind, keys, names)
			}
			if e["type"] != kind || e["name"] != e["identity"] || e["identity"] == "" {
				t.Errorf("%s: got type %v, name %v, identity %v", kind, e["type"], e["name"], e["identity"])
			}
			read := m.ask(map[string]any{"operation": "READ", "type": kind, "identity": e["identity"]}, nil)
			got, ok := read.Value.(map[string]any)
			if !ok || read.ApplicationProperties["statusCode"] != int32(200) || !slices.Equal(sortedKeys(got), names) || got["identity"] != e["identity"] {
				t.Errorf("READ %s %v: %v %v", kind, e["identity"], read.ApplicationProperties, read.Value)
			}
		}
	}
	if nodes := m.ask(map[string]any{"operation": "GET-MGMT-NODES"}, nil); len(nodes.Value.([]any)) != 0 {
		t.Errorf("nodes: %v", nodes.Value)
	}
	one := m.ask(map[string]any{"operation": "GET-OPERATIONS", "entityType": "connection"}, nil).Value.(map[string]any)
	if fmt.Sprint(one) != "map[connection:[READ DELETE]]" {
		t.Errorf("operations: %v", one)
	}
}

func sortedKeys(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestWhatIsSeen(t *testing.T) {
	s := serve(t, nil, people)
	x := s.session(t, "a")
	recv, err := x.NewReceiver(t.Context(), "telemetry/A", &goamqp.ReceiverOptions{Credit: 50, Name: "consumer"})
	if err != nil {
		t.Fatal(err)
	}
	send, err := x.NewSender(t.Context(), "telemetry/A", &goamqp.SenderOptions{Name: "producer"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := send.SendWithReceipt(t.Context(), goamqp.NewMessage([]byte("x")), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := recv.Receive(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	m := s.manager(t, "operator", "$management/replies")
	find := func(kind, attribute string, value any) map[string]any {
		t.Helper()
		for _, e := range m.query(kind) {
			if e[attribute] == value {
				return e
			}
		}
		t.Fatalf("no %s with %s %v among %v", kind, attribute, value, m.query(kind))
		return nil
	}
	check := func(e map[string]any, want map[string]any) {
		t.Helper()
		for k, v := range want {
			if e[k] != v {
				t.Errorf("%s of %v: got %v (%T), want %v", k, e["identity"], e[k], e[k], v)
			}
		}
	}
	conn := find("connection", "user", "a")
	check(conn, map[string]any{"container": "of-a", "dir": "in", "sasl": "PLAIN", "isEncrypted": false, "kind": "application",
		"sessionCount": int64(1), "linkCount": int64(2), "unsettledCount": int64(3)})
	if n := conn["bytesIn"].(int64); n < 100 {
		t.Errorf("bytesIn: %d", n)
	}
	if host := conn["host"].(string); !strings.HasPrefix(host, "127.0.0.1:") {
		t.Errorf("host: %s", host)
	}
	check(find("link", "linkName", "consumer"), map[string]any{"linkDir": "out", "owningAddr": "telemetry/A", "credit": int64(47),
		"unsettledCount": int64(3), "deliveryCount": int64(3), "connection": conn["identity"], "user": "a", "rcvSettleMode": "first"})
	check(find("link", "linkName", "producer"), map[string]any{"linkDir": "in", "owningAddr": "telemetry/A", "unsettledCount": int64(3), "deliveryCount": int64(3)})
	check(find("address", "identity", "telemetry/A"), map[string]any{"distribution": "balanced", "senderCount": int64(1), "receiverCount": int64(1),
		"surplusCount": int64(0), "forwardedCount": int64(3), "givenCredit": int64(47)})
	check(find("identity", "identity", "a"), map[string]any{"connectionCount": int64(1), "maxConnections": int64(100)})
	check(find("listener", "role", "northbound"), map[string]any{"address": s.addr, "connectionCount": int64(2), "acceptedCount": int64(2)})
	check(find("router", "identity", "r"), map[string]any{"connectionCount": int64(2), "linkCount": int64(4), "forwardedCount": int64(3)})
}

func TestDynamicAddressesAreNotToldApart(t *testing.T) {
	s := serve(t, nil, people)
	r, err := s.session(t, "a").NewReceiver(t.Context(), "", &goamqp.ReceiverOptions{DynamicAddress: true})
	if err != nil {
		t.Fatal(err)
	}
	m := s.manager(t, "looker", "")
	for _, kind := range []string{"address", "link"} {
		if text := fmt.Sprint(m.query(kind)); strings.Contains(text, r.Address()) || !strings.Contains(text, "_dynamic/#") {
			t.Errorf("%s: a dynamic address is told, or none is there: %s", kind, text)
		}
	}
	if got := m.status(map[string]any{"operation": "READ", "type": "address", "identity": r.Address()}); got != 404 {
		t.Errorf("got %d, want 404", got)
	}
}

func TestPages(t *testing.T) {
	s := serve(t, nil, map[string][]auth.Authority{"operator": people["operator"], "all": people["all"]})
	x := s.session(t, "all")
	const n = 1100
	for i := range n {
		if _, err := x.NewReceiver(t.Context(), fmt.Sprintf("telemetry/%04d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	m := s.manager(t, "operator", "$management/r")
	page := func(offset, count int32) (names []string, total int64) {
		t.Helper()
		reply := m.ask(map[string]any{"operation": "QUERY", "entityType": "address", "offset": offset, "count": count},
			map[string]any{"attributeNames": []any{"identity", "nothing", "receiverCount"}})
		body := reply.Value.(map[string]any)
		if got := fmt.Sprint(body["attributeNames"]); got != "[identity nothing receiverCount]" {
			t.Errorf("attributeNames: %s", got)
		}
		rows, _ := body["results"].([]any)
		for _, r := range rows {
			row := r.([]any)
			if name := row[0].(string); strings.HasPrefix(name, "telemetry/") {
				names = append(names, name)
				if row[1] != nil || row[2] != int64(1) {
					t.Errorf("got row %v", row)
				}
			}
		}
		if got := reply.ApplicationProperties["count"].(int32); int(got) != len(rows) {
			t.Errorf("count %d of %d rows", got, len(rows))
		}
		return names, reply.ApplicationProperties["total"].(int64)
	}
	first, total := page(0, 5000)
	second, _ := page(1000, 5000)
	if len(first)+len(second) != n || total != n+2 { // the node itself, and where its replies go
		t.Errorf("got %d and %d of %d", len(first), len(second), total)
	}
	if all := append(first, second...); !slices.IsSorted(all) || len(slices.Compact(all)) != n {
		t.Error("pages overlap")
	}
	if few, _ := page(10, 3); len(few) != 3 {
		t.Errorf("got %v", few)
	}
	if none, _ := page(100000, 3); len(none) != 0 {
		t.Errorf("got %v", none)
	}
	links := m.ask(map[string]any{"operation": "QUERY", "type": "link", "offset": int32(1099)}, nil)
	if got := links.ApplicationProperties["count"]; got != int32(3) {
		t.Errorf("got %v links behind 1,099, want 3", got)
	}
}

func TestStatusOfWhatCannotBeDone(t *testing.T) {
	s := serve(t, nil, people)
	m := s.manager(t, "operator", "")
	for _, tt := range []struct {
		properties map[string]any
		want       int32
	}{
		{map[string]any{"operation": "QUERY", "entityType": "queue"}, 404},
		{map[string]any{"operation": "READ", "type": "link"}, 400},
		{map[string]any{"operation": "READ", "identity": "1"}, 400},
		{map[string]any{"operation": "READ", "type": "link", "identity": "1/2"}, 404},
		{map[string]any{"operation": "READ", "type": "link", "identity": "1/99999999999/1"}, 404},
		{map[string]any{"operation": "READ", "type": "connection", "identity": "99"}, 404},
		{map[string]any{"operation": "READ", "type": "connection", "identity": "-1"}, 404},
		{map[string]any{"operation": "READ", "type": "address", "identity": "telemetry/none"}, 404},
		{map[string]any{"operation": "CREATE", "type": "address", "name": "x"}, 501},
		{map[string]any{"operation": "query", "entityType": "link"}, 501},
		{map[string]any{"operation": "DELETE", "type": "address", "name": "$management"}, 501},
		{map[string]any{"operation": "DELETE", "type": "connection", "identity": "99"}, 404},
		{map[string]any{"type": "connection"}, 400},
	} {
		if got := m.status(tt.properties); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.properties, got, tt.want)
		}
	}
}

func TestCloseConnection(t *testing.T) {
	s := serve(t, nil, people)
	victim := s.dial(t, "a")
	id := func(m *manager, user string) string {
		for _, e := range m.query("connection") {
			if e["user"] == user {
				return e["identity"].(string)
			}
		}
		t.Fatalf("no connection of %s", user)
		return ""
	}
	looker := s.manager(t, "looker", "")
	if got := looker.status(map[string]any{"operation": "DELETE", "type": "connection", "identity": id(looker, "a")}); got != 403 {
		t.Errorf("without the authority: got %d, want 403", got)
	}
	m := s.manager(t, "operator", "")
	if got := m.status(map[string]any{"operation": "DELETE", "type": "connection", "identity": id(m, "a")}); got != 204 {
		t.Errorf("got %d, want 204", got)
	}
	<-victim.Done()
	if got := condition(victim.Err()); got != "amqp:connection:forced" {
		t.Errorf("got %v, want amqp:connection:forced", victim.Err())
	}
	// One's own: the reply comes first. The client may take note of the end
	// before what came before it, so it gets several chances to see both.
	for try := 1; !closesOwn(t, m, id(m, "operator")); try++ {
		if try == 20 {
			t.Fatal("the end came without a reply, or before it")
		}
		m = s.manager(t, "operator", "")
	}
}

// closesOwn has m's connection closed, and reports whether the reply was seen.
func closesOwn(t *testing.T, m *manager, identity string) bool {
	t.Helper()
	msg := &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: "q", ReplyTo: &m.replyTo},
		ApplicationProperties: map[string]any{"operation": "DELETE", "type": "connection", "identity": identity}}
	err := m.sender.Send(t.Context(), msg, nil)
	var reply *goamqp.Message
	if err == nil {
		reply, err = m.receiver.Receive(t.Context(), nil)
	}
	if err == nil {
		if got := reply.ApplicationProperties["statusCode"]; got != int32(204) {
			t.Errorf("got %v, want 204", got)
		}
		_, err = m.receiver.Receive(t.Context(), nil)
	}
	if condition(err) != "amqp:connection:forced" {
		t.Errorf("got %v, want amqp:connection:forced", err)
	}
	return reply != nil
}

func TestWhoMayNotManageLearnsNothing(t *testing.T) {
	s := serve(t, nil, people)
	s.manager(t, "operator", "$management/r")
	for _, user := range []string{"a", "all"} { // an authority for every address does not include this one
		x := s.session(t, user)
		if _, err := x.NewSender(t.Context(), "$management", nil); condition(err) != "amqp:unauthorized-access" {
			t.Errorf("%s sends: got %v", user, err)
		}
		for _, source := range []string{"$management", "$management/r", "$management/x"} {
			if _, err := x.NewReceiver(t.Context(), source, nil); condition(err) != "amqp:unauthorized-access" {
				t.Errorf("%s receives from %s: got %v", user, source, err)
			}
		}
		r, err := x.NewReceiver(t.Context(), "", &goamqp.ReceiverOptions{DynamicAddress: true})
		if err != nil {
			t.Fatal(err)
		}
		anonymous, err := x.NewSender(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		to, replyTo := "$management", r.Address()
		err = anonymous.Send(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: "1", To: &to, ReplyTo: &replyTo},
			ApplicationProperties: map[string]any{"operation": "QUERY"}}, nil)
		if condition(err) != "amqp:unauthorized-access" {
			t.Errorf("%s sends without a link address: got %v", user, err)
		}
	}
	x := s.session(t, "operator")
	if _, err := x.NewReceiver(t.Context(), "$management", nil); condition(err) != "amqp:invalid-field" {
		t.Errorf("got %v, want a hint where replies go", err)
	}
	if _, err := x.NewSender(t.Context(), "$management/r", nil); condition(err) != "amqp:not-allowed" {
		t.Errorf("got %v: only the router replies", err)
	}
}

func TestReplyOnAnotherConnection(t *testing.T) {
	s := serve(t, nil, people)
	elsewhere, err := s.session(t, "operator").NewReceiver(t.Context(), "$management/mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := s.manager(t, "looker", "$management/mine") // the same name, another connection
	if got := m.query("router"); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if msg := elsewhere.Prefetched(); msg != nil {
		t.Errorf("a reply went to another connection: %v", msg.Value)
	}
}

func TestRightsThatAreTakenAwayHoldAtOnce(t *testing.T) {
	s := serve(t, nil, people)
	m := s.manager(t, "looker", "")
	m.query("router")
	s.without(t, "looker")
	reply, replyTo := "q", m.replyTo
	err := m.sender.Send(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: reply, ReplyTo: &replyTo},
		ApplicationProperties: map[string]any{"operation": "QUERY"}}, nil)
	if err != nil {
		return // the connection was closed: as good
	}
	got, err := m.receiver.Receive(t.Context(), nil)
	if err == nil && got.ApplicationProperties["statusCode"] != int32(403) {
		t.Errorf("got %v, want 403", got.ApplicationProperties)
	}
}

func TestMalformedRequestsAreRejected(t *testing.T) {
	s := serve(t, nil, people)
	m := s.manager(t, "operator", "")
	for name, msg := range map[string]*goamqp.Message{
		"nothing":     goamqp.NewMessage(nil),
		"no reply-to": {Properties: &goamqp.MessageProperties{MessageID: "1"}, ApplicationProperties: map[string]any{"operation": "QUERY"}},
	} {
		if err := m.sender.Send(t.Context(), msg, nil); condition(err) != "amqp:invalid-field" {
			t.Errorf("%s: got %v, want amqp:invalid-field", name, err)
		}
	}
	// The credit of each came back.
	for range 300 {
		m.status(map[string]any{"operation": "GET-TYPES"})
	}
}
