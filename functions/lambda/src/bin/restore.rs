//! Restores what a request asks for, for as long as there is time; what is left is gone on with by the request it answers with.

use lambda::Call;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::serve(|Call { functions, event, until }: Call<serde_json::Value>| async move { functions.restore(event, until).await }).await
}
