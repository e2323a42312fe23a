//! The model list: Anthropic's shape, its pagination, and no upstream in between.

use sallyport_tests::gateway::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_paged_both_ways_without_asking_an_upstream() {
    let app = TestApp::start().await;
    let all = app.get("/v1/models?limit=1000").await.json();
    let ids: Vec<_> =
        all["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5"]);
    assert_eq!(
        (&all["has_more"], &all["first_id"], &all["last_id"]),
        (&false.into(), &ids[0].as_str().into(), &ids[2].as_str().into())
    );
    assert_eq!(all["data"][0]["type"], "model");
    assert_eq!(all["data"][0]["display_name"], "Claude Sonnet 4.5");

    let first = app.get("/v1/models?limit=2").await.json();
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &true.into()));
    let rest =
        app.get(&format!("/v1/models?limit=2&after_id={}", first["last_id"].as_str().unwrap())).await.json();
    assert_eq!((&rest["data"][0]["id"], &rest["has_more"]), (&ids[2].as_str().into(), &false.into()));
    let back = app.get(&format!("/v1/models?limit=1&before_id={}", ids[2])).await.json();
    assert_eq!(back["data"][0]["id"], ids[1].as_str());
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_model_is_found_by_its_id_and_another_is_not() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/v1/models/claude-opus-4-5").await.json()["id"], "claude-opus-4-5");
    let reply = app.get("/v1/models/claude-nothing").await;
    assert_eq!((reply.status, reply.error_type().as_str()), (404, "not_found_error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_page_is_a_400_and_a_stranger_gets_no_list() {
    let app = TestApp::start().await;
    for query in ["limit=0", "limit=1001", "limit=x"] {
        let reply = app.get(&format!("/v1/models?{query}")).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{query}");
    }
    assert_eq!(app.client().send("GET", "/v1/models", &[], "").await.status, 401);
}
