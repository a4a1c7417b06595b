package kubernetes_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// sensors are devices that send events, so many that partitions of each router are
// among theirs.
var sensors = func() (ids []string) {
	for i := range 8 {
		ids = append(ids, fmt.Sprintf("sensor-%d", i))
	}
	return ids
}()

// testKept has devices send events while no application is there. They get 202, and an
// application that comes later gets the events.
func testKept(t *testing.T, s *site) {
	var sent []string
	refused := 0
	for round := range 5 {
		for _, id := range sensors {
			text := fmt.Sprintf("%s kept %d", id, round)
			eventually(t, "an event is accepted", func() error {
				code, err := s.upload(t.Context(), fresh(s), event, id, text)
				if err == nil && code != http.StatusAccepted {
					refused++
					err = fmt.Errorf("answered with %d", code)
				}
				return err
			})
			sent = append(sent, text)
		}
	}
	began := time.Now()
	e := consumeEvents(t, s)
	twice := 0
	for _, text := range sent {
		eventually(t, text+" comes", func() error {
			if !e.has(text) {
				return errors.New("it did not")
			}
			return nil
		})
		twice += e.times(text) - 1
	}
	t.Logf("%d events accepted with nobody there, %d uploads refused before; %s from an application's start to the last of them; %d came again",
		len(sent), refused, time.Since(began).Round(time.Millisecond), twice)
	if twice > refused {
		t.Errorf("%d came again", twice)
	}
}

// testEvents has an application at every router. What one router stores and the other
// one delivers comes when that one is told of it.
func testEvents(t *testing.T, s *site, e *application) {
	next := 0
	began := time.Now()
	eventually(t, "both routers deliver", func() error {
		id := sensors[next%len(sensors)]
		next++
		if err := s.accepted(t, event, id, fmt.Sprintf("%s shares %d", id, next)); err != nil {
			return err
		}
		if n := e.routers(); n < 2 {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	share := time.Since(began)
	t.Logf("both routers deliver after %s", share.Round(time.Millisecond))
	if share > 8*time.Second { // after 10 s it would have it anyway
		t.Error("one router gave the other one nothing")
	}
	const probes = 48
	var took []time.Duration
	for i := range probes { // on connections of their own, so by both adapters to both routers
		id := sensors[i%len(sensors)]
		text := fmt.Sprintf("%s probe %d", id, i)
		began := time.Now()
		if err := s.accepted(t, event, id, text); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for !e.has(text) && time.Since(began) < patience {
			time.Sleep(time.Millisecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("upload to application: half of %d within %s, all within %s", len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	// A router that is not told finds out when the other one's claim ends, after 10 s.
	if took[len(took)-1] > 5*time.Second {
		t.Error("a router was not told what the other one stored")
	}
}
