"""`swiftlite app-ui`: a chat page over the same engine and the same `template.encode` as infer and deploy."""

import os

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # before gradio is imported: it reports to its makers otherwise
