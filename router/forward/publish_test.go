package forward_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/forward"
)

// publish sends a message of this process and returns where its outcome comes.
func publish(r *forward.Router, address, body string) <-chan string {
	told := make(chan string, 2)
	r.Publish(address, data(body), func(state amqp.Raw) { told <- outcome(state) })
	return told
}

func TestPublishToNobody(t *testing.T) {
	r, addr := start(t, open{})
	for _, address := range []string{"multicast/x", "balanced"} {
		if got := <-publish(r, address, "a"); got != "released" {
			t.Errorf("%s without a link: %s", address, got)
		}
		sender(t, addr, address, nil)
		if got := <-publish(r, address, "a"); got != "released" {
			t.Errorf("%s without a receiver: %s", address, got)
		}
	}
}

// TestPublishToClosed has an address that takes nothing from senders.
func TestPublishToClosed(t *testing.T) {
	r, addr := start(t, open{})
	if got := <-publish(r, "closed", "a"); got != "released" {
		t.Errorf("without a receiver: %s", got)
	}
	settled := goamqp.SenderSettleModeSettled
	x := receiver(t, addr, "closed", &goamqp.ReceiverOptions{RequestedSenderSettleMode: &settled, Credit: 10})
	for <-publish(r, "closed", "a") != "accepted" { // until the credit has come
	}
	if m, err := x.Receive(t.Context(), nil); err != nil || string(m.GetData()) != "a" {
		t.Error(m, err)
	}
}

func TestPublishToAll(t *testing.T) {
	r, addr := start(t, open{})
	a := receiver(t, addr, "multicast/x", nil)
	b := receiver(t, addr, "multicast/x", nil)
	settled := goamqp.SenderSettleModeSettled
	c := receiver(t, addr, "multicast/x", &goamqp.ReceiverOptions{RequestedSenderSettleMode: &settled, Credit: 10})
	told := publish(r, "multicast/x", "hello")
	for _, x := range []*goamqp.Receiver{a, b, c} {
		m, err := x.Receive(t.Context(), nil)
		if err != nil || string(m.GetData()) != "hello" {
			t.Fatalf("%v, %v", m, err)
		}
		select {
		case got := <-told:
			t.Fatalf("told %s before all have settled", got)
		default:
		}
		if x == a {
			err = x.AcceptMessage(t.Context(), m)
		} else if x == b {
			defer func() {
				if err := b.ReleaseMessage(t.Context(), m); err != nil {
					t.Error(err)
				}
				if got := <-told; got != "accepted" {
					t.Errorf("got %s, want accepted: one receiver took it", got)
				}
			}()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPublishToOne has an address on which each message has one receiver. One
// that is lost may have acted upon what it got.
func TestPublishToOne(t *testing.T) {
	r, addr := start(t, open{})
	x := receiver(t, addr, "balanced", &goamqp.ReceiverOptions{Credit: -1})
	if got := <-publish(r, "balanced", "no credit"); got != "released" {
		t.Errorf("without credit: %s", got)
	}
	if err := x.IssueCredit(2); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"rejected", "modified(delivery-failed)"} {
		var told <-chan string
		for { // until the credit has come
			told = publish(r, "balanced", fmt.Sprint(i))
			select {
			case got := <-told:
				if got == "released" {
					continue
				}
				t.Fatal(got)
			default:
			}
			break
		}
		m, err := x.Receive(t.Context(), nil)
		if err != nil || string(m.GetData()) != fmt.Sprint(i) {
			t.Fatal(m, err)
		}
		if i == 0 {
			err = x.RejectMessage(t.Context(), m, nil)
		} else {
			err = x.Close(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := <-told; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	settled := goamqp.SenderSettleModeSettled
	y := receiver(t, addr, "balanced", &goamqp.ReceiverOptions{RequestedSenderSettleMode: &settled, Credit: 10})
	for <-publish(r, "balanced", "settled") != "accepted" {
	}
	if m, err := y.Receive(t.Context(), nil); err != nil || string(m.GetData()) != "settled" {
		t.Error(m, err)
	}
	if got := r.Stats(); got.Forwarded != 3 {
		t.Errorf("%+v", got)
	}
}

// TestPublishOverruns has a receiver that takes nothing: it is detached, and
// the others lose nothing.
func TestPublishOverruns(t *testing.T) {
	r, addr := start(t, open{})
	stuck := receiver(t, addr, "multicast/x", &goamqp.ReceiverOptions{Credit: -1})
	good := receiver(t, addr, "multicast/x", &goamqp.ReceiverOptions{Credit: 100})
	const n = 1200
	done := make(chan string, n)
	for i := range n {
		r.Publish("multicast/x", data(fmt.Sprint(i)), func(state amqp.Raw) { done <- outcome(state) })
		m, err := good.Receive(t.Context(), nil)
		if err != nil || string(m.GetData()) != fmt.Sprint(i) {
			t.Fatalf("message %d: %v, %v", i, m, err)
		}
		if err := good.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if got := <-done; got != "accepted" {
			t.Fatal(got)
		}
	}
	if _, err := stuck.Receive(t.Context(), nil); err == nil {
		t.Error("the receiver that fell behind is still attached")
	}
	if got := r.Stats().Overrun; got != 1 {
		t.Errorf("%d receivers overrun", got)
	}
}

// TestPublishWhileReceiversComeAndGo has every message settled once, whatever
// its receivers do.
func TestPublishWhileReceiversComeAndGo(t *testing.T) {
	r, addr := start(t, open{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, address := range []string{"multicast/x", "balanced"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				x := receiver(t, addr, address, &goamqp.ReceiverOptions{Credit: 5})
				for range 3 {
					if m, err := x.Receive(t.Context(), nil); err == nil {
						x.AcceptMessage(t.Context(), m)
					}
				}
				x.Close(t.Context())
			}
		})
	}
	var told, accepted sync.Map
	const n = 3000
	var all sync.WaitGroup
	both := func() bool {
		_, multicast := accepted.Load(0)
		_, balanced := accepted.Load(1)
		return multicast && balanced
	}
	for i := 0; i < n || !both(); i++ {
		all.Add(1)
		address := []string{"multicast/x", "balanced"}[i%2]
		for try := 0; ; try++ {
			if a, ok := r.Address(address); ok && a.Receivers > 0 || try == 1000 {
				break
			}
			runtime.Gosched()
		}
		r.Publish(address, data(fmt.Sprint(i)), func(state amqp.Raw) {
			if _, twice := told.LoadOrStore(i, true); twice {
				t.Errorf("message %d is settled twice", i)
			}
			if state.StateKind() == amqp.DescAccepted {
				accepted.Store(i%2, true)
			}
			all.Done()
		})
	}
	close(stop)
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for over := false; !over; { // let those go who wait for a message, and those who are just coming
		select {
		case <-done:
			over = true
		case <-time.After(time.Millisecond):
			for _, address := range []string{"multicast/x", "balanced"} {
				r.Publish(address, data("end"), func(amqp.Raw) {})
			}
		}
	}
	all.Wait()
}
